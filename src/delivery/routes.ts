/**
 * Routes: which transport an attempt takes, and why.
 *
 * Decided anew for every attempt, by pure functions over the configuration and the facts:
 *  1. an operator's choice of transport for the message wins;
 *  2. else the routes of the message's account, of its sender's domain, and those for all are
 *     asked in this order, and the first that matches chooses;
 *  3. else the transport "direct" is taken.
 *
 * Two criteria need more than the envelope: `to_mx` the MX hosts of the destination, `header` the
 * header of the message. They are asked for only when a route is reached whose other criteria all
 * hold (router.ts). Where the answer cannot be had, the criterion is not met, and the choice says
 * so: the message goes the way that it would have gone without that route.
 *
 * A transport that is chosen need not exist: a reload may have removed the one that an operator
 * assigned. The delivery reports that as a temporary failure which names it.
 */
import type { RoutingFacts, TransportChoice } from "../../actors/ports.ts";
import {
  canonicalDomainOf,
  type DomainPattern,
  formatDomainPattern,
  matchesDomain,
} from "../config/domain_pattern.ts";
import { type Config, DIRECT, type HeaderCriterion, type RouteConfig } from "../config/types.ts";
import type { HeaderFields } from "./header_fields.ts";

/** What routes are decided on. */
export type RoutingConfig = Pick<Config, "routes" | "transports">;

export type RouteScope = "account" | "domain" | "global";

/** What had to be asked for, or why there is no answer. */
export type Found<T> = { readonly value: T } | { readonly unknown: string };

/** What is known beyond the envelope; absent: nobody has asked yet. */
export interface Known {
  /** Names of the MX hosts of the recipient's domain, as lower-case A-labels. */
  readonly mx?: Found<readonly string[]>;
  readonly header?: Found<HeaderFields>;
}

/** One criterion of one route, held against the facts. */
export interface CriterionResult {
  readonly criterion:
    | "from_domain"
    | "to_domain"
    | "minimum_attempts"
    | "size_over"
    | "to_mx"
    | "header";
  /** What the route asks for, as it may stand in a config. */
  readonly wanted: string;
  /** What the message has. */
  readonly found: string;
  readonly matched: boolean;
  /** What must be asked to tell. */
  readonly ask?: keyof Known;
  /** Why it cannot be told; it counts as not met. */
  readonly unknown?: string;
}

/** One route held against the facts. */
export interface RouteResult {
  readonly scope: RouteScope;
  readonly owner?: string;
  readonly index: number;
  /** Where the route stands in the config: `domains."example.com".routes[0]`. */
  readonly path: string;
  readonly transport: string;
  readonly criteria: readonly CriterionResult[];
  /** All criteria hold. More than one route may match: the first one is taken. */
  readonly matched: boolean;
}

interface ScopedRoute {
  readonly scope: RouteScope;
  readonly owner?: string;
  readonly index: number;
  readonly route: RouteConfig;
}

/** What the criteria compare with; domains in canonical form, worked out once per attempt. */
interface Subject {
  readonly from: string;
  readonly to: string;
  readonly attemptsSoFar: number;
  readonly size: number;
  readonly known: Known;
}

const subjectOf = ({ mailFrom, rcptTo, attempt, size }: RoutingFacts, known: Known): Subject => ({
  from: canonicalDomainOf(mailFrom),
  to: canonicalDomainOf(rcptTo),
  attemptsSoFar: attempt - 1,
  size,
  known,
});

/** The routes that a message is held against, in the order in which they are asked. */
function* applicable(
  { routes }: RoutingConfig,
  account: string | null,
  subject: Subject,
): Generator<ScopedRoute> {
  const scoped = function* (
    scope: RouteScope,
    list: readonly RouteConfig[] | undefined,
    owner?: string,
  ): Generator<ScopedRoute> {
    for (const [index, route] of (list ?? []).entries()) {
      yield { scope, ...(owner === undefined ? {} : { owner }), index, route };
    }
  };
  if (account !== null) yield* scoped("account", routes.accounts.get(account), account);
  yield* scoped("domain", routes.domains.get(subject.from), subject.from);
  yield* scoped("global", routes.global);
}

function judge(route: RouteConfig, subject: Subject): CriterionResult[] {
  const criteria: CriterionResult[] = [];
  const domain = (
    criterion: "from_domain" | "to_domain",
    patterns: readonly DomainPattern[] | undefined,
    found: string,
  ): void => {
    if (!patterns) return;
    const match = patterns.find((pattern) => matchesDomain(pattern, found));
    criteria.push({
      criterion,
      wanted: (match ? [match] : patterns).map(formatDomainPattern).join(", "),
      found,
      matched: match !== undefined,
    });
  };
  domain("from_domain", route.fromDomain, subject.from);
  domain("to_domain", route.toDomain, subject.to);
  if (route.minimumAttempts !== undefined) {
    criteria.push({
      criterion: "minimum_attempts",
      wanted: String(route.minimumAttempts),
      found: String(subject.attemptsSoFar),
      matched: subject.attemptsSoFar >= route.minimumAttempts,
    });
  }
  if (route.sizeOver !== undefined) {
    criteria.push({
      criterion: "size_over",
      wanted: String(route.sizeOver),
      found: String(subject.size),
      matched: subject.size > route.sizeOver,
    });
  }
  if (route.toMx) criteria.push(judgeMx(route.toMx, subject.known.mx));
  if (route.header) criteria.push(judgeHeader(route.header, subject.known.header));
  return criteria;
}

function judgeMx(
  patterns: readonly DomainPattern[],
  mx: Known["mx"],
): CriterionResult {
  const wanted = patterns.map(formatDomainPattern).join(", ");
  if (!mx || "unknown" in mx) return untold("to_mx", wanted, "mx", mx);
  const host = mx.value.find((name) => patterns.some((pattern) => matchesDomain(pattern, name)));
  const found = host ?? mx.value.join(", ");
  return { criterion: "to_mx", wanted, found, matched: host !== undefined };
}

function judgeHeader(header: HeaderCriterion, fields: Known["header"]): CriterionResult {
  const { name, value } = header;
  const wanted = value === undefined ? name : `${name}: ${value}`;
  if (!fields || "unknown" in fields) return untold("header", wanted, "header", fields);
  const values = fields.value.get(name.toLowerCase()) ?? [];
  const matched = value === undefined
    ? values.length > 0
    : values.some((one) => asciiLower(one) === asciiLower(value));
  // Of the message, only what the config says anyway.
  return { criterion: "header", wanted, found: matched ? wanted : "", matched };
}

function untold(
  criterion: CriterionResult["criterion"],
  wanted: string,
  ask: keyof Known,
  answer: { readonly unknown: string } | undefined,
): CriterionResult {
  const result = { criterion, wanted, found: "", matched: false };
  return answer ? { ...result, unknown: answer.unknown } : { ...result, ask };
}

const asciiLower = (text: string): string =>
  text.replace(/[A-Z]/g, (letter) => letter.toLowerCase());

const isMet = (criteria: readonly CriterionResult[]): boolean =>
  criteria.every(({ matched }) => matched);

/** The type of a transport; one that is gone could only have been tried directly. */
const typeOf = ({ transports }: RoutingConfig, name: string): TransportChoice["type"] =>
  transports.get(name)?.type ?? "direct";

/** The transport of an attempt; what is not known counts as not met. */
export function chooseRoute(
  config: RoutingConfig,
  facts: RoutingFacts,
  known: Known = {},
): TransportChoice {
  const decided = decideRoute(config, facts, {
    mx: known.mx ?? { unknown: "not asked for" },
    header: known.header ?? { unknown: "not asked for" },
  });
  if ("ask" in decided) throw new Error(`a route asks for ${decided.ask} again`);
  return decided;
}

/**
 * The transport of an attempt, with the reason that goes into the log; or what must be asked first
 * to tell, since a route is reached that depends on it.
 */
export function decideRoute(
  config: RoutingConfig,
  facts: RoutingFacts,
  known: Known,
): TransportChoice | { readonly ask: keyof Known } {
  if (facts.override) {
    const { transport, who } = facts.override;
    return { transport, type: typeOf(config, transport), because: { kind: "override", who } };
  }
  const subject = subjectOf(facts, known);
  const undecided: string[] = [];
  const noted = () => undecided.length > 0 ? { undecided } : {};
  for (const { scope, owner, index, route } of applicable(config, facts.account, subject)) {
    const criteria = judge(route, subject);
    if (!isMet(criteria)) {
      const failed = criteria.filter(({ matched }) => !matched);
      if (failed.some(({ ask, unknown }) => ask === undefined && unknown === undefined)) continue;
      const open = failed.find(({ ask }) => ask !== undefined);
      if (open) return { ask: open.ask! };
      for (const { criterion, unknown } of failed) {
        undecided.push(`${route.path}.${criterion}: ${unknown}`);
      }
      continue;
    }
    return {
      transport: route.transport,
      type: typeOf(config, route.transport),
      because: {
        kind: "route",
        scope,
        ...(owner === undefined ? {} : { owner }),
        index,
        matched: Object.fromEntries(criteria.map(({ criterion, found }) => [criterion, found])),
      },
      ...noted(),
    };
  }
  return {
    transport: DIRECT,
    type: typeOf(config, DIRECT),
    because: { kind: "default" },
    ...noted(),
  };
}

/** Every route that the message is held against, in order, with every criterion of each. */
export function explainRoutes(
  config: RoutingConfig,
  facts: RoutingFacts,
  known: Known = {},
): RouteResult[] {
  const subject = subjectOf(facts, known);
  return [...applicable(config, facts.account, subject)].map(({ scope, owner, index, route }) => {
    const criteria = judge(route, subject);
    return {
      scope,
      ...(owner === undefined ? {} : { owner }),
      index,
      path: route.path,
      transport: route.transport,
      criteria,
      matched: isMet(criteria),
    };
  });
}
