/**
 * The places that mail goes to in the virtual world: hosts, and domains of every kind that the
 * DNS knows (several MX hosts, none, null MX, aliases, address literals, domains that are not).
 */
import type { VirtualTime } from "./clock.ts";
import type { Dns, Name } from "./dns.ts";
import type { Network } from "./network.ts";
import type { Dice } from "./random.ts";
import { type HostObserver, SmtpHost } from "./smtp_host.ts";

const PORT = 25;

const mx = (...exchanges: readonly (readonly [number, string])[]): Name => ({
  MX: exchanges.map(([preference, exchange]) => ({ preference, exchange })),
});

/** The zones as they are meant to be. */
const ZONES: Readonly<Record<string, Name>> = {
  "sender.example": mx([10, "in.sender.example"]),
  "in.sender.example": { A: ["203.0.113.1"] },
  "mx.example": mx([10, "mx1.mx.example"], [10, "mx2.mx.example"], [20, "mx3.mx.example"]),
  "mx1.mx.example": { A: ["203.0.113.11"] },
  "mx2.mx.example": { A: ["203.0.113.12"], AAAA: ["2001:db8::12"] },
  "mx3.mx.example": { A: ["203.0.113.13"] },
  "implicit.example": { A: ["203.0.113.21"] },
  "alias.example": { CNAME: ["single.example"] },
  "single.example": mx([0, "mail.single.example"]),
  "mail.single.example": { A: ["203.0.113.31"] },
  "null.example": mx([0, "."]),
  "dangling.example": mx([10, "nowhere.dangling.example"]),
  "relay.example": { A: ["203.0.113.41"] },
};

const ADDRESSES: Readonly<Record<string, readonly string[]>> = {
  "in.sender.example": ["203.0.113.1"],
  "mx1.mx.example": ["203.0.113.11"],
  "mx2.mx.example": ["203.0.113.12", "2001:db8::12"],
  "mx3.mx.example": ["203.0.113.13"],
  "implicit.example": ["203.0.113.21"],
  "mail.single.example": ["203.0.113.31"],
  "relay.example": ["203.0.113.41"],
};

/** Where messages go, the likelier ones more than once. */
export const RECIPIENT_DOMAINS = [
  "mx.example",
  "mx.example",
  "mx.example",
  "implicit.example",
  "implicit.example",
  "single.example",
  "alias.example",
  "[203.0.113.31]",
  "null.example",
  "dangling.example",
  "absent.example",
] as const;

export class Landscape {
  readonly hosts: SmtpHost[] = [];
  readonly domains = Object.keys(ZONES);

  constructor(
    network: Network,
    dns: Dns,
    time: VirtualTime,
    dice: Dice,
    observer: HostObserver,
  ) {
    for (const [name, addresses] of Object.entries(ADDRESSES)) {
      const ehlo = dice.chance(0.95);
      const can = {
        ehlo,
        pipelining: ehlo && dice.chance(0.7),
        eightBitMime: ehlo && dice.chance(0.8),
        dsn: ehlo && dice.chance(0.3),
        starttls: ehlo && dice.chance(0.5),
        recipients: dice.pick([1_000, 100, 3]),
        lax: dice.chance(0.2),
      };
      const host = new SmtpHost(name, can, time, dice.fork(name), observer);
      this.hosts.push(host);
      for (const address of addresses) network.listen(address, PORT, host);
    }
    this.repair(dns);
  }

  /** One domain gets other records than it should have, or gets its own back. */
  change(dns: Dns, domain: string, dice: Dice): void {
    const own = ZONES[domain];
    if (!own) return;
    switch (dice.int(0, 4)) {
      case 0:
        return dns.remove(domain);
      case 1:
        return dns.set(domain, mx([0, "."]));
      case 2:
        return dns.set(domain, mx([5, "mail.single.example"], [10, "nowhere.example"]));
      case 3:
        return dns.set(domain, { CNAME: [dice.pick(this.domains)] });
      case 4:
        return dns.set(domain, own);
    }
  }

  repair(dns: Dns): void {
    for (const [name, records] of Object.entries(ZONES)) dns.set(name, records);
  }
}
