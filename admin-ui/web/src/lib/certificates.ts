/** How certificates stand, in words, and what should be done about one. */
import type { CertificateView, DoorView } from "../api/types";

const DAY_MS = 86_400_000;

const HOUR_MS = 3_600_000;
const MINUTE_MS = 60_000;

/** How long until then, in the largest unit that fits. */
export function until(time: string, now: number): string {
  const left = new Date(time).getTime() - now;
  const span = Math.abs(left);
  const text = spanOf(span);
  return left < 0 ? `${text} ago` : `in ${text}`;
}

function spanOf(span: number): string {
  const many = (size: number, unit: string) => {
    const amount = Math.floor(span / size);
    return `${amount} ${unit}${amount === 1 ? "" : "s"}`;
  };
  if (span >= 2 * DAY_MS) return many(DAY_MS, "day");
  if (span >= HOUR_MS) return many(HOUR_MS, "hour");
  return span >= MINUTE_MS ? many(MINUTE_MS, "minute") : "less than a minute";
}

export const STANDING = {
  valid: { tone: "good", text: "valid" },
  ends_soon: { tone: "warn", text: "ends soon" },
  ended: { tone: "bad", text: "ended" },
  not_yet: { tone: "bad", text: "does not hold yet" },
} as const;

export interface Warning {
  bad: boolean;
  text: string;
}

/** What is wrong with a door's certificate, or soon will be; none where all is well. `about` is the same for doors of which the same
 * can be said. */
function troubleOf({ tls }: DoorView, now: number): { about: string; bad: boolean; say: (doors: string) => string } | null {
  if (!tls) return null;
  const { standing, not_after, not_before, sha256 } = tls.certificate;
  const of = (what: string) => `${what} ${sha256}`;
  if (standing === "ended")
    return {
      about: of("ended"),
      bad: true,
      say: (doors) => `The certificate of the ${doors} has ended ${until(not_after, now)}: clients refuse it.`,
    };
  if (standing === "not_yet")
    return {
      about: of("not yet"),
      bad: true,
      say: (doors) => `The certificate of the ${doors} holds only ${until(not_before, now)}: clients refuse it.`,
    };
  if (tls.refused_since)
    return {
      about: of("refused"),
      bad: true,
      say: (doors) =>
        `The files of the ${doors} were changed to what cannot serve: the certificate before serves on, and ends ${until(not_after, now)}. The log says what is wrong with them.`,
    };
  if (standing === "ends_soon")
    return {
      about: of("ends soon"),
      bad: false,
      say: (doors) =>
        `The certificate of the ${doors} ends ${until(not_after, now)}: put a new one in its place. It serves without a restart.`,
    };
  const authority = tls.authorities.find((one) => one.standing !== "valid");
  if (!authority) return null;
  const soon = authority.standing === "ends_soon";
  return {
    about: `authority ${authority.sha256}`,
    bad: !soon,
    say: (doors) =>
      `The authority ${nameOf(authority)}, whose clients the ${doors} admit${doors.endsWith("s") ? "" : "s"}, ${soon ? "ends" : "stands badly: it ends"} ${until(authority.not_after, now)}.`,
  };
}

/** "inference door", or "inference, admin and metrics doors". */
function doorsNamed(names: string[]): string {
  const [last = "", ...others] = [...names].reverse();
  return others.length === 0 ? `${last} door` : `${others.reverse().join(", ")} and ${last} doors`;
}

/** What is wrong with the doors' certificates, or soon will be, the worst first. Doors that share a certificate are named together:
 * there is one thing to do. */
export function warningsOf(doors: DoorView[], now: number): Warning[] {
  const alike = new Map<string, { names: string[]; bad: boolean; say: (doors: string) => string }>();
  for (const door of doors) {
    const trouble = troubleOf(door, now);
    if (!trouble) continue;
    const known = alike.get(trouble.about);
    if (known) known.names.push(door.door);
    else alike.set(trouble.about, { names: [door.door], bad: trouble.bad, say: trouble.say });
  }
  return [...alike.values()]
    .map(({ names, bad, say }) => ({ bad, text: say(doorsNamed(names)) }))
    .sort((one, other) => Number(other.bad) - Number(one.bad));
}

/** Whether callers are asked for certificates; null while that is not known. */
export function asksCallers(doors: DoorView[] | undefined): boolean | null {
  if (!doors) return null;
  return doors.some(({ door, tls }) => door === "inference" && tls !== null && tls.clients !== "off");
}

/** What a certificate is called: its holder, or what it is named by where it names none. */
export const nameOf = (certificate: CertificateView): string =>
  certificate.subject || certificate.names[0] || "without a name";

/** Names, and how many more there are. */
export const namesOf = (certificate: CertificateView): string =>
  [...certificate.names, ...(certificate.more_names > 0 ? [`and ${certificate.more_names} more`] : [])].join(", ") || "–";
