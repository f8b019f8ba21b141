/**
 * GET /destinations and their metrics: the next hops of the queue, how much runs at each, and which
 * are down.
 */
import { z } from "zod";
import type { DestinationState } from "../../actors/supervisor.ts";
import { Timestamp } from "../../events/schemas/scalars.ts";
import type { Metrics } from "./metrics.ts";
import { type Operation, valueOf, wholeNumber } from "./operation.ts";
import { badParameter, forbidden } from "./problem.ts";

export interface DestinationPorts {
  /** In any order. */
  destinations(): DestinationState[];
}

const DEFAULT_LIMIT = 100;
const MAX_LIMIT = 1_000;
const Count = z.int().min(0);

export const DestinationList = z.strictObject({
  destinations: z.array(z.strictObject({
    /** Domain of the recipients, `mx:…` for domains that share MX hosts, or `transport:NAME`. */
    destination: z.string(),
    /** Attempts under way, and as many as may be. */
    running: Count,
    window: z.int().min(1),
    /** Messages in line; what does not fit into a line is in the queue, and not counted. */
    waiting: Count,
    /** When its rates let the next message start; null where none is configured. */
    paced: Timestamp.nullable(),
    down: z.strictObject({ since: Timestamp, probe: Timestamp, why: z.string() }).nullable(),
  })),
  /** As many as there are, and as many of them as are down. */
  total: Count,
  down: Count,
});
export type DestinationList = z.infer<typeof DestinationList>;

export function destinationOperations(ports: DestinationPorts): Operation[] {
  return [{
    id: "listDestinations",
    method: "get",
    path: "/destinations",
    scope: "read",
    about: "Lists the next hops of the queue: those that are down first, then the busiest.",
    parameters: [{
      name: "limit",
      in: "query",
      about: "list so many at the most",
      schema: { type: "integer", minimum: 1, maximum: MAX_LIMIT, default: DEFAULT_LIMIT },
    }],
    answer: { status: 200, about: "The destinations.", schema: DestinationList },
    problems: [],
    handle: ({ query, principal }) => {
      if (principal.account !== null) {
        throw forbidden("destinations are those of all accounts, and this token is bound to one");
      }
      const limit = wholeNumber(valueOf(query, "limit") ?? String(DEFAULT_LIMIT), MAX_LIMIT);
      if (!limit) throw badParameter("limit", `it takes a whole number from 1 to ${MAX_LIMIT}`);
      return Promise.resolve({ status: 200, body: destinationList(ports.destinations(), limit) });
    },
  }];
}

export function destinationList(all: readonly DestinationState[], limit: number): DestinationList {
  const destinations = mostTelling(all).slice(0, limit).map((state) => {
    const { key: destination, running, window, waiting, paced = null, down } = state;
    return {
      destination,
      running,
      window,
      waiting,
      paced,
      down: down ? { since: down.since, probe: down.until, why: down.why } : null,
    };
  });
  return { destinations, total: all.length, down: all.filter(({ down }) => down).length };
}

/** Those that are down first, then those with most in line. */
const mostTelling = (all: readonly DestinationState[]): DestinationState[] =>
  all.toSorted((a, b) =>
    Number(b.down !== undefined) - Number(a.down !== undefined) || b.waiting - a.waiting ||
    b.running - a.running || (a.key < b.key ? -1 : 1)
  );

/** Destinations with metrics of their own: labels are bounded, whatever the queue holds. */
const IN_METRICS = 20;

const GAUGES = {
  running: "Attempts running, at the destinations that are down and the busiest.",
  waiting: "Messages in line, for the destinations that are down and the busiest.",
  window: "Attempts that may run at once, at the destinations that are down and the busiest.",
} as const;

export function destinationGauges(
  metrics: Pick<Metrics, "gauge" | "gauges">,
  all: () => DestinationState[],
): void {
  metrics.gauge("postledger_destinations", "Destinations known.", () => all().length);
  metrics.gauge(
    "postledger_destinations_down",
    "Destinations that are down.",
    () => all().filter(({ down }) => down).length,
  );
  for (const what of ["running", "waiting", "window"] as const) {
    const values = () =>
      mostTelling(all()).slice(0, IN_METRICS).map((state) => [state.key, state[what]] as const);
    metrics.gauges(`postledger_destination_${what}`, GAUGES[what], "destination", values);
  }
}
