/**
 * Routes: which transport an attempt takes, and why.
 *
 * Decided anew for every attempt, by pure functions over the configuration:
 *  1. an operator's choice of transport for the message wins;
 *  2. else the routes of the message's account, of its sender's domain, and those for all are
 *     asked in this order, and the first that matches chooses;
 *  3. else the transport "direct" is taken.
 *
 * A transport that is chosen need not exist: a reload may have removed the one that an operator
 * assigned. The delivery reports that as a temporary failure which names it.
 */
import type { Router, RoutingFacts, TransportChoice } from "../../actors/ports.ts";
import {
  canonicalDomainOf,
  type DomainPattern,
  formatDomainPattern,
  matchesDomain,
} from "../config/domain_pattern.ts";
import { type Config, DIRECT, type RouteConfig } from "../config/types.ts";

/** What routes are decided on. */
export type RoutingConfig = Pick<Config, "routes" | "transports">;

export type RouteScope = "account" | "domain" | "global";

/** One criterion of one route, held against the facts. */
export interface CriterionResult {
  readonly criterion: "from_domain" | "to_domain" | "minimum_attempts";
  /** What the route asks for, as it may stand in a config. */
  readonly wanted: string;
  /** What the message has. */
  readonly found: string;
  readonly matched: boolean;
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
}

const subjectOf = ({ mailFrom, rcptTo, attempt }: RoutingFacts): Subject => ({
  from: canonicalDomainOf(mailFrom),
  to: canonicalDomainOf(rcptTo),
  attemptsSoFar: attempt - 1,
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
  return criteria;
}

const isMet = (criteria: readonly CriterionResult[]): boolean =>
  criteria.every(({ matched }) => matched);

/** The type of a transport; one that is gone could only have been tried directly. */
const typeOf = ({ transports }: RoutingConfig, name: string): TransportChoice["type"] =>
  transports.get(name)?.type ?? "direct";

/** The transport of an attempt, with the reason that goes into the log. */
export function chooseRoute(config: RoutingConfig, facts: RoutingFacts): TransportChoice {
  if (facts.override) {
    const { transport, who } = facts.override;
    return { transport, type: typeOf(config, transport), because: { kind: "override", who } };
  }
  const subject = subjectOf(facts);
  for (const { scope, owner, index, route } of applicable(config, facts.account, subject)) {
    const criteria = judge(route, subject);
    if (!isMet(criteria)) continue;
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
    };
  }
  return { transport: DIRECT, type: typeOf(config, DIRECT), because: { kind: "default" } };
}

/** Every route that the message is held against, in order, with every criterion of each. */
export function explainRoutes(config: RoutingConfig, facts: RoutingFacts): RouteResult[] {
  const subject = subjectOf(facts);
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

/** The router of a running queue. A reload of the configuration makes a new one. */
export class ConfiguredRouter implements Router {
  constructor(private readonly config: RoutingConfig) {}

  choose(facts: RoutingFacts): TransportChoice {
    return chooseRoute(this.config, facts);
  }

  /**
   * Direct delivery burdens the recipient's domain; a smarthost takes the mail of every domain
   * and is one destination.
   */
  destination(choice: TransportChoice, rcptTo: string): string {
    return choice.type === "direct" || choice.type === "socks"
      ? canonicalDomainOf(rcptTo)
      : `transport:${choice.transport}`;
  }
}
