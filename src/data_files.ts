/** The files that lie in the data folder beside those of the store (events/data_folder.ts). */
import { ACCOUNTS_FILE, LOCK_FILE } from "./accounts/accounts_file.ts";
import { SECRET_FILE } from "./accounts/secret.ts";
import { ADDRESS_FILE } from "./http/address_file.ts";
import { TOKEN_FILE } from "./http/api_token.ts";
import { TOKENS_FILE } from "./http/tokens.ts";

/** Belong to a backup, and to the eyes of nobody else. */
export const SECRET_FILES = [TOKEN_FILE, TOKENS_FILE, ACCOUNTS_FILE, SECRET_FILE] as const;

/** Made anew where they are missing: no part of a backup. */
export const RUN_FILES = [ADDRESS_FILE, LOCK_FILE] as const;
