/** Every sentence the widget shows; the service sends them in the visitor's language. */
export interface Texts {
  readonly title: string;
  readonly body: string;
  readonly accept: string;
  readonly reject: string;
  readonly manage: string;
  readonly save: string;
  readonly close: string;
  readonly dialog_title: string;
  readonly dialog_body: string;
  readonly always_on: string;
  readonly gpc_notice: string;
  readonly policy_link: string;
  /** Label of the reject button where the law speaks of an opt-out. */
  readonly do_not_sell: string;
  readonly withdraw: string;
  /** `{purpose}` stands for the names of the purposes that are missing. */
  readonly placeholder: string;
  readonly placeholder_once: string;
  readonly placeholder_always: string;
  /** `{id}` and `{date}` stand for the consent record's id and day. */
  readonly record: string;
}
