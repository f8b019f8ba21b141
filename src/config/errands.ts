/** The sections for what is done beside delivering: webhooks, suppression, retention. */
import { z } from "zod";
import { WEBHOOK_KINDS } from "../../actors/webhook_message.ts";
import { isLoopback } from "../smtp/server/loopback.ts";
import type { Problem } from "./problems.ts";
import { Duration } from "./scalars.ts";
import { Secret } from "./secret.ts";
import type { WebhookConfig } from "./types.ts";

const DAY = 86_400_000;

const Url = z.string().max(2_000).refine((text) => {
  const url = URL.parse(text);
  return url !== null && ["http:", "https:"].includes(url.protocol) && url.username === "" &&
    url.password === "";
}, { error: "is not an http or https URL without user and password" });

const WebhookSecret = z.string().min(16, {
  error: "is shorter than 16 characters; take what `openssl rand -hex 32` gives",
}).max(1_000);

export const WebhookEntry = z.strictObject({
  url: Url,
  secret: WebhookSecret,
  old_secret: WebhookSecret.optional(),
  events: z.array(z.enum(WEBHOOK_KINDS)).min(1, {
    error: "names no event; leave it out for all of them",
  }).default([...WEBHOOK_KINDS]),
  accounts: z.array(z.string().min(1).max(255)).min(1, {
    error: "names no account; leave it out for all of them",
  }).max(10_000).optional(),
  concurrency: z.int().min(1).max(256).default(32),
  park_after: Duration.default(DAY),
  insecure_http: z.boolean().default(false),
});

export const Webhooks = z.record(
  z.string().regex(/^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/, {
    error: "is no name of a webhook: letters, digits, dots, hyphens and underscores",
  }),
  WebhookEntry,
).default({});

export const Suppression = z.strictObject({
  automatic: z.boolean().default(true),
  expire: Duration.optional(),
}).prefault({});

export const Retention = z.strictObject({
  keep: Duration.refine((ms) => ms >= 1_000, { error: "is less than a second" }).default(90 * DAY),
}).prefault({});

/** @returns the endpoints, and what is wrong with them */
export function webhooksOf(
  entries: Readonly<Record<string, z.output<typeof WebhookEntry>>>,
): { readonly webhooks: readonly WebhookConfig[]; readonly problems: readonly Problem[] } {
  const problems: Problem[] = [];
  const webhooks = Object.entries(entries).map(([name, entry]): WebhookConfig => {
    const { protocol, hostname } = new URL(entry.url);
    const host = hostname.replace(/^\[(.*)\]$/, "$1");
    const here = isLoopback(host) || host === "localhost";
    if (protocol === "http:" && !here && !entry.insecure_http) {
      problems.push({
        path: ["webhooks", name, "url"],
        message: "sends addresses over the network in clear; write https, or insecure_http = true",
        showValue: true,
      });
    }
    return {
      name,
      url: entry.url,
      secret: new Secret(entry.secret),
      ...(entry.old_secret === undefined ? {} : { oldSecret: new Secret(entry.old_secret) }),
      events: entry.events,
      ...(entry.accounts ? { accounts: entry.accounts } : {}),
      concurrency: entry.concurrency,
      parkAfter: entry.park_after,
    };
  });
  return { webhooks, problems };
}
