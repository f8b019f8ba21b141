/** Passwords of accounts: what is good enough, and ones that are made here. */
import { randomInt } from "node:crypto";

/** Characters. Guesses are slowed down (throttle.ts), so that length is what counts. */
export const LEAST_LENGTH = 12;

/** Why a password is not taken; undefined when it is. Never repeats it. */
export function objectionTo(password: string, account: string): string | undefined {
  const characters = [...password];
  if (characters.length < LEAST_LENGTH) {
    return `it has ${characters.length} characters; the least is ${LEAST_LENGTH}`;
  }
  if (new Set(characters).size < 4) return "it repeats the same few characters";
  if (password.toLowerCase().includes(account.toLowerCase()) && account.length > 3) {
    return "it contains the name of the account";
  }
  return undefined;
}

/** Without characters that are taken for each other. */
const ALPHABET = "abcdefghijkmnpqrstuvwxyz23456789";

/** Twenty characters in groups of five: 100 bits. */
export function newPassword(): string {
  const group = () =>
    Array.from({ length: 5 }, () => ALPHABET[randomInt(ALPHABET.length)]).join("");
  return [group(), group(), group(), group()].join("-");
}
