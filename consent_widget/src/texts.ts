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
  /** Label of the reject button where the law speaks of an opt-out and something is sold. */
  readonly do_not_sell: string;
  readonly withdraw: string;
  readonly placeholder: string;
  readonly placeholder_once: string;
  readonly placeholder_always: string;
  /** `{id}` and `{date}` stand for the consent record's id and day. */
  readonly record: string;
  // Texts that came later: a notice published before lacks them, and that part is not shown.
  /** Closes the banner where the law only wants people told. */
  readonly understood?: string;
  readonly limit_use?: string;
  readonly gpc_badge?: string;
  readonly gpc_overruled?: string;
  /** `{changes}` stands for the names of purposes that are new or altered. */
  readonly changed?: string;
  readonly changed_notice?: string;
  /** `{date}` stands for the day of the choice that has run out. */
  readonly expired?: string;
  readonly receipt?: string;
  /** Leads to the form for requests. */
  readonly your_data?: string;
  /** `{names}` stands for the names of cookies. */
  readonly not_cleared?: string;
  readonly unavailable?: string;
}
