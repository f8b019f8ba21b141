/**
 * What has to fit together between the sections of a config: names that are used and defined,
 * addresses and domains that are named once, routes that can be reached.
 */
import { isLoopback } from "../smtp/server/loopback.ts";
import { coversDomain, type DomainPattern, matchesDomain } from "./domain_pattern.ts";
import { didYouMean, formatPath, type Path, type Problem } from "./problems.ts";
import type { ConfigFile } from "./schema.ts";
import {
  DIRECT,
  type HeaderCriterion,
  type ListenerConfig,
  type RouteConfig,
  type RouteTable,
} from "./types.ts";

/** A route with its place in the file. */
export interface PlacedRoute extends RouteConfig {
  readonly at: Path;
}

export interface PlacedRoutes extends RouteTable {
  readonly accounts: ReadonlyMap<string, readonly PlacedRoute[]>;
  readonly domains: ReadonlyMap<string, readonly PlacedRoute[]>;
  readonly global: readonly PlacedRoute[];
}

export function checkListeners(listeners: readonly ListenerConfig[]): Problem[] {
  return [...sharedAddresses(listeners), ...listeners.flatMap(exposure)];
}

/** Who can reach a listener that takes mail must log in, and log in over TLS. */
function exposure(listener: ListenerConfig): Problem[] {
  if (listener.protocol === "http") return [];
  const { name, protocol, listen, auth, certificate } = listener;
  const problems: Problem[] = [];
  const open = !isLoopback(listen.address);
  if (auth === "none" && open) {
    problems.push({
      path: ["listen", name, "address"],
      message:
        'is not a loopback address, so anybody could send through it; write auth = "required"' +
        ", or listen on 127.0.0.1 or [::1]",
      showValue: true,
    });
  }
  if (!certificate && (protocol === "submissions" || (auth === "required" && open))) {
    const why = protocol === "submissions"
      ? "the protocol is TLS"
      : "passwords come in over TLS only";
    problems.push({
      path: ["listen", name, "cert_file"],
      message: `is missing: ${why}; name cert_file and key_file`,
    });
  }
  return problems;
}

/** Two listeners cannot share an address; port 0 is a new one each time. */
function sharedAddresses(listeners: readonly ListenerConfig[]): Problem[] {
  const names = new Map<string, string>();
  return listeners.flatMap(({ name, listen }) => {
    if (listen.port === 0) return [];
    const key = `${listen.address} ${listen.port}`;
    const other = names.get(key);
    names.set(key, other ?? name);
    return other === undefined ? [] : [{
      path: ["listen", name, "address"],
      message: `is the address of ${formatPath(["listen", other])} too; give each its own`,
      showValue: true,
    }];
  });
}

export function checkQueue(queue: ConfigFile["queue"]): Problem[] {
  if (queue.destination_concurrency <= queue.concurrency) return [];
  return [{
    path: ["queue", "destination_concurrency"],
    message:
      `is more than queue.concurrency, which is ${queue.concurrency}; lower it or raise that`,
    showValue: true,
  }];
}

/**
 * Routes name transports that exist. Looks at the file itself, before the schema, so that a wrong
 * name is reported together with whatever else is wrong.
 */
export function checkTransportNames(file: unknown): Problem[] {
  const section = (value: unknown): Readonly<Record<string, unknown>> =>
    typeof value === "object" && value !== null && !Array.isArray(value) ? { ...value } : {};
  const config = section(file);
  const known = new Set([DIRECT, ...Object.keys(section(config.transports))]);
  const check = (owner: unknown, at: Path): Problem[] => {
    const { routes } = section(owner);
    if (!Array.isArray(routes)) return [];
    return routes.flatMap((route, n): Problem[] => {
      const { transport } = section(route);
      if (typeof transport !== "string" || transport === "" || known.has(transport)) return [];
      const message = `is not a transport${didYouMean(transport, known)}`;
      return [{ path: [...at, "routes", n, "transport"], message, showValue: true }];
    });
  };
  return [
    ...["accounts", "domains"].flatMap((scope) =>
      Object.entries(section(config[scope])).flatMap(([name, owner]) => check(owner, [scope, name]))
    ),
    ...check(config, []),
  ];
}

export function checkRoutes(
  routes: PlacedRoutes,
  maxAttempts: number,
): Problem[] {
  const domainScopes = [...routes.domains].flatMap(([domain, list]) =>
    list.flatMap((route) => outsideOf(domain, route))
  );
  const lists = [...routes.accounts.values(), ...routes.domains.values(), routes.global];
  return [
    ...lists.flat().flatMap((route) => checkRoute(route, maxAttempts)),
    ...domainScopes,
    ...unreachable(routes),
  ];
}

function checkRoute(route: PlacedRoute, maxAttempts: number): Problem[] {
  const problems: Problem[] = [];
  // The last attempt has max_attempts - 1 before it.
  if ((route.minimumAttempts ?? 0) >= maxAttempts) {
    problems.push({
      path: [...route.at, "minimum_attempts"],
      message: `is never reached: queue.max_attempts is ${maxAttempts}, so the last attempt has ` +
        `${maxAttempts - 1} before it`,
      showValue: true,
    });
  }
  const criteria = [
    ["from_domain", route.fromDomain],
    ["to_domain", route.toDomain],
    ["to_mx", route.toMx],
  ] as const;
  for (const [name, patterns] of criteria) {
    patterns?.forEach((pattern, n) => {
      const wider = patterns.findIndex((other, m) =>
        m !== n && coversDomain(other, pattern) && (m < n || !coversDomain(pattern, other))
      );
      if (wider < 0) return;
      problems.push({
        path: [...route.at, name, n],
        message: `is meant by ${name}[${wider}] already; remove it`,
        showValue: true,
      });
    });
  }
  return problems;
}

/** Routes of a domain are asked only for senders in it. */
function outsideOf(domain: string, route: PlacedRoute): Problem[] {
  if (!route.fromDomain || route.fromDomain.some((pattern) => matchesDomain(pattern, domain))) {
    return [];
  }
  return [{
    path: [...route.at, "from_domain"],
    message: `can never match: these routes are asked only for senders at ${domain}; ` +
      "leave the criterion out, or move the route to [[routes]]",
  }];
}

/** A part of what a route takes that no list divides any further. */
interface Atom {
  /** Absent: every sender, the null one too. */
  readonly from?: DomainPattern | undefined;
  readonly to?: DomainPattern | undefined;
  readonly minimumAttempts: number;
  readonly mx?: DomainPattern | undefined;
  /** -1: of any size. */
  readonly sizeOver: number;
  readonly header?: HeaderCriterion | undefined;
}

function atomsOf(route: RouteConfig, owner?: string): Atom[] {
  const froms = owner === undefined ? route.fromDomain ?? [undefined] : [{
    domain: owner,
    below: false,
  }];
  const { minimumAttempts = 0, sizeOver = -1, header } = route;
  return froms.flatMap((from) =>
    (route.toDomain ?? [undefined]).flatMap((to) =>
      (route.toMx ?? [undefined]).map((mx) => ({ from, to, mx, minimumAttempts, sizeOver, header }))
    )
  );
}

const covers = (
  wide: readonly DomainPattern[] | undefined,
  narrow: DomainPattern | undefined,
): boolean =>
  !wide || (narrow !== undefined && wide.some((pattern) => coversDomain(pattern, narrow)));

const takes = (route: RouteConfig, atom: Atom): boolean =>
  covers(route.fromDomain, atom.from) && covers(route.toDomain, atom.to) &&
  covers(route.toMx, atom.mx) && (route.minimumAttempts ?? 0) <= atom.minimumAttempts &&
  (route.sizeOver ?? -1) <= atom.sizeOver && coversHeader(route.header, atom.header);

function coversHeader(
  wide: HeaderCriterion | undefined,
  narrow: HeaderCriterion | undefined,
): boolean {
  if (!wide) return true;
  if (narrow?.name.toLowerCase() !== wide.name.toLowerCase()) return false;
  return wide.value === undefined || wide.value.toLowerCase() === narrow.value?.toLowerCase();
}

/**
 * Routes that no message reaches, since earlier ones take all that they would. Exact: an atom has
 * a domain that stands in no list (a new one below, where it is a branch), so what several routes
 * together take of it, one of them takes alone.
 */
function unreachable({ accounts, domains, global }: PlacedRoutes): Problem[] {
  const inList = (list: readonly PlacedRoute[], owner?: string) =>
    list.flatMap((route, n) => shadow(route, atomsOf(route, owner), () => list.slice(0, n)));
  return [
    ...[...accounts.values()].flatMap((list) => inList(list)),
    ...[...domains].flatMap(([domain, list]) => inList(list, domain)),
    ...global.flatMap((route, n) =>
      shadow(route, atomsOf(route), ({ from }) => [
        ...(from && !from.below ? domains.get(from.domain) ?? [] : []),
        ...global.slice(0, n),
      ])
    ),
  ];
}

function shadow(
  route: PlacedRoute,
  atoms: readonly Atom[],
  earlier: (atom: Atom) => readonly PlacedRoute[],
): Problem[] {
  const paths = new Set<string>();
  for (const atom of atoms) {
    const first = earlier(atom).find((other) => takes(other, atom));
    if (!first) return [];
    paths.add(first.path);
  }
  const [one, ...more] = paths;
  const others = more.length > 0 ? `${[one, ...more].join(" and ")} come` : `${one} comes`;
  const take = more.length > 0 ? "take" : "takes";
  return [{
    path: route.at,
    message: `can never match: ${others} first and ${take} every message that this one would; ` +
      "move this one up or remove it",
  }];
}
