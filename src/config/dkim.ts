/**
 * The DKIM keys of a config: `[domains."example.com"] dkim = [{ selector = …, key_file = … }]`.
 * They are read with the config, so that a key that cannot sign is met then and not when mail comes.
 */
import { resolve } from "node:path";
import { BadDkimKey, GOOD_RSA_BITS, readDkimKey } from "../dkim/keys.ts";
import { hostName } from "../dns/names.ts";
import { formatPath, type Path, type Problem } from "./problems.ts";
import type { ConfigFile } from "./schema.ts";
import type { DkimKeyConfig } from "./types.ts";

/** What others of this machine may not do with a key: read it, and the group: write it. */
const TOO_OPEN = 0o027;

/** Reads the keys; `base` is the folder that paths of files are relative to. */
export function dkimOf(
  domains: ConfigFile["domains"],
  base: string,
  problems: Problem[],
): { readonly keys: Map<string, DkimKeyConfig[]>; readonly warnings: string[] } {
  const keys = new Map<string, DkimKeyConfig[]>();
  const warnings: string[] = [];
  for (const [name, { dkim }] of Object.entries(domains)) {
    const domain = hostName(name);
    if (domain === undefined || dkim.length === 0) continue; // a bad name is said with the routes
    const selectors = new Set<string>();
    const found = dkim.flatMap(({ selector, key_file }, n): DkimKeyConfig[] => {
      const at: Path = ["domains", name, "dkim", n];
      if (selectors.has(selector)) {
        problems.push({
          path: [...at, "selector"],
          message: "is the selector of another key too; a record holds one key",
          showValue: true,
        });
      }
      selectors.add(selector);
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
        return [{ selector, keyFile, key }];
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
