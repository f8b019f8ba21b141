/**
 * A survey of a domain: everything that a delivery to it would find out, up to the handshake with
 * each address of each MX host, without a message. Judges as direct delivery does (judge.ts).
 */
import type { Clock, Random } from "../../actors/ports.ts";
import type { EventData } from "../../events/catalogue.ts";
import { resolveAddresses } from "../dns/addresses.ts";
import { resolveDestination } from "../dns/destinations.ts";
import { type Connection, type Dialer, DialError, type Resolver } from "../ports.ts";
import { ClientSession, type SessionTls } from "../smtp/client.ts";
import type { Timeouts } from "../smtp/timeouts.ts";
import { quoteReply } from "../smtp/reply.ts";
import type { TlsPolicy } from "../tls/policy.ts";
import { type MessageNeeds, type MtaSts, passesOver } from "../tls/requirements.ts";
import { destinationFact } from "./direct.ts";
import { judgeHost, passedOver } from "./judge.ts";
import { DIAL_LIMITS } from "./submit.ts";

export interface SurveyPorts {
  readonly clock: Clock;
  readonly random: Random;
  readonly resolver: Resolver;
  readonly dialer: Dialer;
  readonly mtaSts?: MtaSts;
  readonly ca?: readonly string[];
  readonly hostname: string;
  readonly timeouts?: Partial<Timeouts>;
}

export interface SurveyOptions {
  readonly port: number;
  readonly family: "any" | "ipv4" | "ipv6";
  readonly allowLoopback: boolean;
  readonly needs: MessageNeeds;
  /** Milliseconds for one connection. */
  readonly connect: number;
}

export interface AddressSurvey {
  readonly address: string;
  /**
   * - `ok`: a message could be sent
   * - `plain`: TLS fails, and a message would go in plain text
   * - `failed`: the address would not get a message
   */
  readonly verdict: "ok" | "plain" | "failed";
  readonly tlsMode: SessionTls["mode"];
  readonly verifiedBy: SessionTls["verifiedBy"];
  readonly tls?: SessionTls["facts"];
  readonly proof?: string;
  readonly testing?: { readonly ok: boolean; readonly detail: string };
  readonly extensions: readonly string[];
  readonly error?: string;
}

export interface HostSurvey {
  readonly host: string;
  readonly preference: number;
  /** Absent when no address was found. */
  readonly gathered?: EventData<"TLSAGathered">;
  /** Why it would not be dialled. */
  readonly failure?: string;
  readonly addresses: readonly AddressSurvey[];
}

export interface Survey {
  readonly domain: string;
  readonly destination?: EventData<"DestinationsResolved">;
  /** Why a message to the domain would fail before any host is looked at. */
  readonly failure?: string;
  readonly hosts: readonly HostSurvey[];
  /** Some host would get a message. */
  readonly deliverable: boolean;
}

export async function surveyDomain(
  ports: SurveyPorts,
  domain: string,
  options: SurveyOptions,
  signal: AbortSignal,
): Promise<Survey> {
  const { resolver, random, mtaSts: policies } = ports;
  const destination = await resolveDestination(resolver, domain, random, signal);
  if (destination.kind !== "hosts") {
    const failure = `${destination.kind}: ${destination.reason} (${destination.code})`;
    return { domain, failure, hosts: [], deliverable: false };
  }
  const policy = destination.by === "literal"
    ? undefined
    : await policies?.find(destination.nextHop, signal);
  const fact = destinationFact(destination, policy);
  if (policy?.status === "temporary") {
    const failure = `temporary: MTA-STS: ${policy.reason}`;
    return { domain, destination: fact, failure, hosts: [], deliverable: false };
  }
  const hosts: HostSurvey[] = [];
  for (const { host, preference } of destination.hosts) {
    const about = { host, preference };
    const notNamed = passesOver(host, policy);
    if (notNamed !== undefined) {
      const gathered = passedOver(host, [notNamed]);
      hosts.push({ ...about, gathered, failure: notNamed, addresses: [] });
      continue;
    }
    const { family, allowLoopback, needs, port } = options;
    const found = await resolveAddresses(resolver, host, { family, allowLoopback, signal });
    if (found.failure) {
      hosts.push({ ...about, failure: found.failure.reason, addresses: [] });
      continue;
    }
    const circumstances = { destination, mtaSts: policy, needs, port };
    const judged = await judgeHost(ports, host, found, circumstances, signal);
    const { gathered } = judged;
    if ("failure" in judged) {
      const failure = judged.failure.error ?? judged.failure.result;
      hosts.push({ ...about, gathered, failure, addresses: [] });
      continue;
    }
    const addresses: AddressSurvey[] = [];
    for (const address of found.addresses.slice(0, DIAL_LIMITS.addresses)) {
      addresses.push(await probe(ports, address, judged.policy, options, signal));
    }
    hosts.push({ ...about, gathered, addresses });
  }
  const deliverable = hosts.some(({ addresses }) =>
    addresses.some(({ verdict }) => verdict !== "failed")
  );
  return { domain, destination: fact, hosts, deliverable };
}

/** Greets, takes the session as far as the policy says, and takes leave. */
async function probe(
  ports: SurveyPorts,
  address: string,
  policy: TlsPolicy,
  { port, connect, needs }: SurveyOptions,
  signal: AbortSignal,
): Promise<AddressSurvey> {
  const { clock, dialer, hostname, timeouts } = ports;
  const nothing = { address, tlsMode: policy.mode, verifiedBy: "none" as const, extensions: [] };
  let connection: Connection;
  const abort = new AbortController();
  const give = () => abort.abort(signal.reason);
  signal.addEventListener("abort", give, { once: true });
  const disarm = clock.timer(connect, () => {
    abort.abort(new DialError("timeout", `no connection within ${Math.round(connect / 1000)} s`));
  });
  try {
    connection = await dialer.connect({ address, port }, abort.signal);
  } catch (error) {
    if (!(error instanceof DialError)) throw error;
    return { ...nothing, verdict: "failed", error: error.message };
  } finally {
    disarm();
    signal.removeEventListener("abort", give);
  }
  const session = new ClientSession(connection, {
    clock,
    hostname,
    tls: policy,
    ...(timeouts ? { timeouts } : {}),
  });
  const { verdict } = await session.greet(signal);
  const extensions = [...session.extensions.keys()];
  const lacking = needs.requireTLS && !session.extensions.has("REQUIRETLS");
  await session.quit();
  const { mode: tlsMode, verifiedBy, facts, proof, testing } = session.tls;
  const seen = {
    address,
    tlsMode: facts ? tlsMode : verdict.result === "ok" ? "none" as const : policy.mode,
    verifiedBy,
    ...(facts ? { tls: facts } : {}),
    ...(proof === undefined ? {} : { proof }),
    ...(testing
      ? { testing: { ok: testing.ok, detail: testing.ok ? testing.by : testing.reason } }
      : {}),
    extensions,
  };
  if (verdict.result === "ok") {
    if (!lacking) return { ...seen, verdict: "ok" };
    return { ...seen, verdict: "failed", error: "the host does not offer REQUIRETLS" };
  }
  const said = verdict.reply ? quoteReply(verdict.reply) : undefined;
  const error = [verdict.error, said].filter(Boolean).join(": ") || verdict.result;
  const plain = verdict.handshake && policy.mode === "opportunistic";
  return { ...seen, verdict: plain ? "plain" : "failed", error };
}
