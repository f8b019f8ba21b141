/** Which address of this machine a connection is made from. */
import { it } from "@std/testing/bdd";
import assert from "node:assert/strict";
import { LocalDialer } from "../../../src/delivery/local_dialer.ts";
import type { Connection, Dialer } from "../../../src/ports.ts";

it("the address of the family that is dialled; without one, the system's choice", async () => {
  const targets: unknown[] = [];
  const dialer: Dialer = {
    connect: (target) => {
      targets.push(target);
      return Promise.resolve({} as Connection);
    },
  };
  const local = new LocalDialer(dialer, { ipv4: "192.0.2.9" });
  const signal = new AbortController().signal;
  await local.connect({ address: "198.51.100.1", port: 25 }, signal);
  await local.connect({ address: "2001:db8::1", port: 25 }, signal);
  assert.deepEqual(targets, [
    { address: "198.51.100.1", port: 25, localAddress: "192.0.2.9" },
    { address: "2001:db8::1", port: 25 },
  ]);
});
