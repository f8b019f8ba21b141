/** The certificates of fixtures/dane, as DER. */
import { readFileSync } from "node:fs";

export function certificate(name: string): Uint8Array {
  const pem = readFileSync(new URL(`../../../fixtures/dane/${name}.pem`, import.meta.url), "utf8");
  const base64 = pem.replaceAll(/-----[^-]*-----|\s/g, "");
  return Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
}
