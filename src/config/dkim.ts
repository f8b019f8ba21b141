/**
 * The DKIM keys of a config: `[domains."example.com"] dkim = [{ selector = …, key_file = … }]`.
 * They are read with the config, so that a key that cannot sign is met then and not when mail comes.
 */
import { resolve } from "node:path";
import { z } from "zod";
import { BadDkimKey, GOOD_RSA_BITS, readDkimKey } from "../dkim/keys.ts";
import type { DomainKey } from "../dkim/signer.ts";
import { hostName } from "../dns/names.ts";
import { formatPath, type Path, type Problem } from "./problems.ts";

/** RFC 6376, section 3.1: labels with dots between them. */
const SELECTOR =
  /^[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?){0,3}$/;

export const DkimEntry = z.strictObject({
  selector: z.string().regex(SELECTOR, {
    error: 'is not a selector: letters, digits, hyphens and dots; write it like "2026a"',
  }),
  key_file: z.string().min(1),
});

/** What others of this machine may not do with a key: read it, and the group: write it. */
const TOO_OPEN = 0o027;

/** Reads the keys; `base` is the folder that paths of files are relative to. */
export function dkimOf(
  domains: Readonly<Record<string, { readonly dkim: readonly z.infer<typeof DkimEntry>[] }>>,
  base: string,
  problems: Problem[],
): { readonly keys: Map<string, DomainKey[]>; readonly warnings: string[] } {
  const keys = new Map<string, DomainKey[]>();
  const warnings: string[] = [];
  for (const [name, { dkim }] of Object.entries(domains)) {
    const domain = hostName(name);
    if (domain === undefined || dkim.length === 0) continue; // a bad name is said with the routes
    const selectors = new Set<string>();
    const found = dkim.flatMap(({ selector, key_file }, n): DomainKey[] => {
      const at: Path = ["domains", name, "dkim", n];
      const label = selector.toLowerCase();
      if (selectors.has(label)) {
        problems.push({
          path: [...at, "selector"],
          message: "is used for another key of this domain; a record holds one key",
          showValue: true,
        });
      }
      selectors.add(label);
      const keyFile = resolve(base, key_file);
      try {
        const key = readDkimKey(keyFile);
        checkMode(keyFile);
        if (key.algorithm === "rsa" && key.bits < GOOD_RSA_BITS) {
          warnings.push(
            `config: ${formatPath([...at, "key_file"])}: ${keyFile} has ${key.bits} bits, which ` +
              `some receivers take for unsigned; make one of ${GOOD_RSA_BITS} bits under a new selector`,
          );
        }
        return [{ selector: label, keyFile, key }];
      } catch (error) {
        if (!(error instanceof BadDkimKey)) throw error;
        problems.push({ path: [...at, "key_file"], message: error.message });
        return [];
      }
    });
    keys.set(domain, found);
  }
  return { keys, warnings };
}

/** @throws BadDkimKey */
function checkMode(file: string): void {
  const { mode } = Deno.statSync(file);
  if (mode === null || (mode & TOO_OPEN) === 0) return;
  const octal = (mode & 0o777).toString(8).padStart(4, "0");
  throw new BadDkimKey(`${file} is open to others (mode ${octal}); chmod 640 or 600 it`);
}
