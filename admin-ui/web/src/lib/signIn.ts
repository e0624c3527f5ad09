/** Signing in with an identity provider: where the button leads, and what the door's words for failures mean. */
import { BASE } from "../api/client";

/** The door's word for what went wrong, in an address such as `/?sign_in=role`. */
const PARAMETER = "sign_in";

const TEXTS: Record<string, string> = {
  busy: "Too many sign-ins at once, or in the last minute: wait a minute, then try again.",
  unavailable: "The identity provider does not answer. Try again later, or log in with an admin token.",
  ended: "This sign-in is over, or was used already: begin again.",
  browser: "This sign-in was begun in another browser, or at another address of this door: begin again here.",
  denied: "The identity provider did not let you in.",
  invalid: "What the identity provider answered does not hold; an operator finds the reason in the audit log.",
  role: "The identity provider knows you, but nothing that it says of you gives you a role here: ask an operator.",
  audit: "Nobody can sign in this way while the audit log cannot be written. Log in with an admin token.",
};

/** What to say of a failed sign-in, if the address tells of one. */
export function failureIn(search: string): string | null {
  const word = new URLSearchParams(search).get(PARAMETER);
  if (word === null) return null;
  return (Object.hasOwn(TEXTS, word) && TEXTS[word]) || "Signing in failed: begin again.";
}

/** The address without the word. */
export function withoutFailure(path: string, search: string): string {
  const query = new URLSearchParams(search);
  query.delete(PARAMETER);
  return query.size > 0 ? `${path}?${query}` : path;
}

/** Where the button leads; afterwards back to this page. */
export function signInAddress(path: string, search: string): string {
  return `${BASE}/sign-in/oidc?${new URLSearchParams({ to: withoutFailure(path, search) })}`;
}
