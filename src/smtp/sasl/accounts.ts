/**
 * The accounts behind the server's mechanisms: a lookup that answers for unknown users too, in
 * the same time and with credentials that cannot be told from real ones.
 */
import {
  type CredentialCost,
  DEFAULT_COST,
  fakeCredentials,
  type StoredCredentials,
} from "./credentials.ts";

/** A port to the accounts; `username` comes prepared (SASLprep). */
export type LookUpCredentials = (
  username: string,
) => StoredCredentials | undefined | Promise<StoredCredentials | undefined>;

export interface Found {
  readonly credentials: StoredCredentials;
  /** False: the credentials are made up, and nothing may log in with them. */
  readonly known: boolean;
}

export interface Accounts {
  find(username: string): Promise<Found>;
}

/**
 * @param secret of this server, 32 octets or more from a cryptographic source. Kept over
 *   restarts, or else the salts of unknown users change and those of known ones do not.
 * @param cost that accounts are made with: unknown users show it too
 */
export function accounts(
  lookUp: LookUpCredentials,
  secret: Uint8Array,
  cost: CredentialCost = DEFAULT_COST,
): Accounts {
  return {
    async find(username) {
      // Made for everybody, so that it takes the same time.
      const fake = fakeCredentials(secret, username, cost);
      const credentials = await lookUp(username);
      return credentials ? { credentials, known: true } : { credentials: fake, known: false };
    },
  };
}
