/**
 * Which mechanism a login uses: a pure choice from what the server offers, what the session is
 * worth and what the operator gave. When there is none, the reason names every offer and why it
 * was not taken.
 */
import { type MechanismName, MECHANISMS } from "./mechanism.ts";

export interface ChoiceFacts {
  /** As the reply to EHLO lists them, in any case. */
  readonly offered: readonly string[];
  readonly tls: {
    readonly active: boolean;
    /** The certificate is the server's, by PKIX or DANE: nobody else can read the session. */
    readonly verified: boolean;
    /** Channel binding data is at hand. */
    readonly channelBinding: boolean;
  };
  readonly credentials: "password" | "token";
  /** Only these, in this order; default: MECHANISMS. */
  readonly configured?: readonly MechanismName[];
  /** The operator insists on sending passwords and tokens over what is not verified TLS. */
  readonly insecurePlain?: boolean;
}

export type Choice =
  | {
    readonly kind: "chosen";
    readonly mechanism: MechanismName;
    /** For scramClient: the server offered no -PLUS though we could have bound. */
    readonly bindingNotOffered: boolean;
  }
  | { readonly kind: "none"; readonly reason: string };

/** Those that show the secret itself to whoever reads the session. */
const REVEALING: ReadonlySet<MechanismName> = new Set<MechanismName>([
  "PLAIN",
  "LOGIN",
  "XOAUTH2",
  "OAUTHBEARER",
]);
const WITH_TOKEN: ReadonlySet<MechanismName> = new Set<MechanismName>(["XOAUTH2", "OAUTHBEARER"]);

/** Names of the server that a reason lists at most. */
const MOST_LISTED = 16;

export function chooseMechanism(facts: ChoiceFacts): Choice {
  const offered = new Set(facts.offered.map((name) => name.toUpperCase()));
  const list = facts.configured ?? MECHANISMS;
  const mechanism = list.find((name) => offered.has(name) && hindrance(name, facts) === undefined);
  if (mechanism !== undefined) {
    return {
      kind: "chosen",
      mechanism,
      // "y" is true only of a client that would have used -PLUS (RFC 5802, section 6).
      bindingNotOffered: facts.tls.channelBinding && list.some(isPlus) &&
        ![...offered].some((name) => /^SCRAM-.*-PLUS$/.test(name)),
    };
  }
  if (offered.size === 0) {
    const where = facts.tls.active ? "" : " before TLS";
    return { kind: "none", reason: `the server offers no login mechanism${where}` };
  }
  const names = [...offered].slice(0, MOST_LISTED);
  const findings = names.map((name) =>
    isKnown(name) ? `${name} ${hindrance(name, facts)}` : `${shown(name)} is not known here`
  );
  if (offered.size > names.length) findings.push(`${offered.size - names.length} more`);
  return {
    kind: "none",
    reason: `none of the server's login mechanisms can be used: ${findings.join("; ")}`,
  };
}

/** Why a mechanism that is offered cannot be taken; undefined when it can. */
function hindrance(name: MechanismName, facts: ChoiceFacts): string | undefined {
  if (facts.configured && !facts.configured.includes(name)) return "is not in the configured list";
  if (WITH_TOKEN.has(name) && facts.credentials === "password") {
    return "needs a token, and a password is configured";
  }
  if (!WITH_TOKEN.has(name) && facts.credentials === "token") {
    return "needs a password, and a token is configured";
  }
  if (isPlus(name) && !(facts.tls.active && facts.tls.channelBinding)) {
    return facts.tls.active
      ? "needs channel binding data, and this TLS session has none"
      : "needs TLS to bind to";
  }
  if (REVEALING.has(name) && !facts.tls.verified && !facts.insecurePlain) {
    return facts.tls.active
      ? "needs verified TLS, and the server's certificate is not verified"
      : "needs verified TLS, and the connection is in plain text";
  }
  return undefined;
}

const isPlus = (name: MechanismName): boolean => name.endsWith("-PLUS");

const isKnown = (name: string): name is MechanismName =>
  (MECHANISMS as readonly string[]).includes(name);

/** A name of the server fit for a log line. */
const shown = (name: string): string => /^[A-Z0-9_-]{1,20}$/.test(name) ? name : "an invalid name";
