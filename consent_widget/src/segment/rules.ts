/** Which of Segment's destinations may receive what: by the site's mapping, else by Segment's own. */
import type { Config } from "../config";

export interface Rules {
  /** Destinations known before Segment says which there are. */
  readonly catalogue: readonly string[];
  /** `categories`: those the destination has in the Segment workspace. */
  allows(destination: string, categories?: readonly string[]): boolean;
  /** May anything run at all? While not, Segment itself stays away. */
  allowsAny(): boolean;
}

export type Has = (purpose: string) => boolean;

/** Segment itself, as it is called among its destinations. */
export const ITSELF = "Segment.io";

/** Labels that other modules read: no destinations. */
const OTHERS = /^(ad_|uet$)|_storage$/;

/** A destination that nobody gave a purpose asks for all of them: forgetting one grants nothing. */
export function rulesOf(
  { mapping = {}, purposes }: Pick<Config, "mapping" | "purposes">,
  has: Has,
): Rules {
  const catalogue = Object.keys(mapping).filter((name) => name !== ITSELF && !OTHERS.test(name));
  const optional = purposes.filter(({ required }) => !required).map(({ id }) => id);
  const itself = mapping[ITSELF];
  const allows: Rules["allows"] = (destination, categories = []) => {
    const purpose = mapping[destination];
    if (purpose) return has(purpose);
    const wanted = categories.map((category) => mapping[category] ?? category);
    return (wanted.length > 0 ? wanted : optional).every(has);
  };
  const allowsAny = (): boolean => {
    if (itself) return has(itself);
    return catalogue.length > 0
      ? catalogue.some((destination) => allows(destination))
      : optional.some(has);
  };
  return { catalogue, allows, allowsAny };
}
