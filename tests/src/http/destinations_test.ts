/** Destinations in the metrics: labels are bounded, and what is down comes first. */
import { describe, it } from "@std/testing/bdd";
import assert from "node:assert/strict";
import type { DestinationState } from "../../../actors/supervisor.ts";
import { destinationGauges } from "../../../src/http/destinations.ts";
import { Metrics } from "../../../src/http/metrics.ts";
import { samples } from "../../load/metrics.ts";

describe("metrics of destinations", () => {
  it("name those that are down and the busiest, and count all", async () => {
    const all: DestinationState[] = Array.from({ length: 50 }, (_, n) => ({
      key: `d${n}.example`,
      running: n % 5,
      waiting: n,
      window: 5,
    }));
    all.push({
      key: "dead.example",
      running: 0,
      waiting: 0,
      window: 1,
      down: { since: "", until: "", why: "refused" },
    });
    const metrics = new Metrics();
    destinationGauges(metrics, () => all);
    const { text } = await metrics.text();
    assert.match(text, /^postledger_destinations 51$/m);
    assert.match(text, /^postledger_destinations_down 1$/m);
    const waiting = samples(text, "postledger_destination_waiting");
    assert.equal(waiting.size, 20);
    assert.match(text, /^postledger_destination_window\{destination="dead\.example"\} 1$/m);
    assert.match(text, /^postledger_destination_waiting\{destination="d49\.example"\} 49$/m);
    all.length = 1;
    const later = samples((await metrics.text()).text, "postledger_destination_waiting");
    assert.equal(later.size, 1, "those that are gone are not shown any more");
  });
});
