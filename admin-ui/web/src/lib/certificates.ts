/** How certificates stand, in words, and what should be done about one. */
import type { CertificateView, DoorView } from "../api/types";

const DAY_MS = 86_400_000;

/** How long until then, in the largest unit that fits. */
export function until(time: string, now: number): string {
  const left = new Date(time).getTime() - now;
  const many = (amount: number, unit: string) => `${amount} ${unit}${amount === 1 ? "" : "s"}`;
  const span = Math.abs(left);
  const text =
    span >= 2 * DAY_MS ? many(Math.floor(span / DAY_MS), "day") : many(Math.floor(span / 3_600_000), "hour");
  return left < 0 ? `${text} ago` : `in ${text}`;
}

export const STANDING = {
  valid: { tone: "good", text: "valid" },
  ends_soon: { tone: "warn", text: "ends soon" },
  ended: { tone: "bad", text: "ended" },
  not_yet: { tone: "bad", text: "does not hold yet" },
} as const;

/** What is wrong with a door's certificate, or soon will be; none where all is well. */
export function warningOf({ door, tls }: DoorView, now: number): { bad: boolean; text: string } | null {
  if (!tls) return null;
  const { standing, not_after, not_before } = tls.certificate;
  if (standing === "ended")
    return { bad: true, text: `The certificate of the ${door} door has ended ${until(not_after, now)}: clients refuse it.` };
  if (standing === "not_yet")
    return { bad: true, text: `The certificate of the ${door} door holds only ${until(not_before, now)}: clients refuse it.` };
  if (tls.refused_since)
    return {
      bad: true,
      text: `The ${door} door's files were changed to what cannot serve: the certificate before serves on, and ends ${until(not_after, now)}. The log says what is wrong with them.`,
    };
  if (standing === "ends_soon")
    return {
      bad: false,
      text: `The certificate of the ${door} door ends ${until(not_after, now)}: put a new one in its place. It serves without a restart.`,
    };
  const authority = tls.authorities.find((one) => one.standing !== "valid");
  if (authority)
    return {
      bad: authority.standing !== "ends_soon",
      text: `The authority ${nameOf(authority)}, whose clients the ${door} door admits, ${authority.standing === "ends_soon" ? "ends" : "stands badly: it ends"} ${until(authority.not_after, now)}.`,
    };
  return null;
}

/** What a certificate is called: its holder, or what it is named by where it names none. */
export const nameOf = (certificate: CertificateView): string =>
  certificate.subject || certificate.names[0] || "without a name";

/** Names, and how many more there are. */
export const namesOf = (certificate: CertificateView): string =>
  [...certificate.names, ...(certificate.more_names > 0 ? [`and ${certificate.more_names} more`] : [])].join(", ") || "–";
