/**
 * Sets a sending domain up in a folder:
 *
 *   1. host keys, their certificates and requests, DKIM keys, the MTA-STS policy
 *   2. the config, which is loaded before it gets its name, so that `serve` takes it as it is
 *   3. the store of the queue, empty, with the key that signs its checkpoints
 *   4. an account for the address, with a password that nobody else has seen
 *
 * What is there already stays as it is, octet by octet. What fails takes back all that it made.
 */
import { Buffer } from "node:buffer";
import { join, relative } from "node:path";
import {
  ACCOUNTS_FILE,
  changeAccounts,
  LOCK_FILE,
  readAccounts,
} from "../accounts/accounts_file.ts";
import { matchesAddress } from "../accounts/address_pattern.ts";
import { newPassword } from "../accounts/password.ts";
import type { Clock } from "../../actors/ports.ts";
import { archivePath } from "../../events/archive.ts";
import { publicKeyPath } from "../../events/checkpoint_key.ts";
import { bodiesPath, databasePath, keyPath, lockPath } from "../../events/data_folder.ts";
import { openStore } from "../../events/open.ts";
import { loadConfig } from "../config/load.ts";
import type { Config } from "../config/types.ts";
import { type DkimAlgorithm, dkimKeyPem, makeDkimKey, readDkimKey } from "../dkim/keys.ts";
import { stsPolicy } from "../dnscheck/mta_sts.ts";
import { type Subject, subjectOf } from "../dnscheck/subject.ts";
import { parseMailbox } from "../smtp/address.ts";
import type { CredentialCost } from "../smtp/sasl/credentials.ts";
import { deriveCredentials, serializeCredentials } from "../smtp/sasl/credentials.ts";
import { spkiDigest } from "../tls/host_key.ts";
import { configText, dkimText } from "./config_text.ts";
import {
  certificateRequest,
  HOST_KEYS,
  type HostKeyKind,
  makeHostKey,
  selfSigned,
} from "./host_certificate.ts";
import { exists, NewFiles } from "./new_files.ts";
import { recordsFor, type Section } from "./records.ts";

export const CONFIG_NAME = "postledger.toml";

export interface Wishes {
  /** Absolute path. */
  readonly folder: string;
  /** Canonical, and its domain as A-labels. */
  readonly address: string;
  readonly domain: string;
  /** For a config that is made; one that is there has its own. */
  readonly hostname: string;
  /** Who takes mail for the domain; the host by default. */
  readonly mx?: string;
  readonly listen: string;
  readonly submissionPort: number;
  readonly submissionsPort: number;
  readonly localPort: number;
  readonly webPort: number;
  readonly publicAddresses: readonly string[];
}

export interface QuickstartPorts {
  readonly interfaces: () => readonly string[];
  readonly clock: Clock;
  /** Epoch milliseconds. */
  readonly now: () => number;
  readonly random: (length: number) => Uint8Array;
  readonly cost: CredentialCost;
  readonly env: Parameters<typeof loadConfig>[0]["env"];
}

export interface Outcome {
  readonly config: string;
  readonly hostname: string;
  /** Paths relative to the folder. */
  readonly made: readonly string[];
  readonly kept: readonly string[];
  /** The password stands here once, and nowhere else. */
  readonly account: { readonly name: string; readonly password?: string };
  /** TOML that a config which was kept lacks. */
  readonly add?: string;
  readonly records: readonly Section[];
}

/** @throws ConfigError, BadAccountsFile, DataFolderError, or an error of the file system */
export async function quickstart(ports: QuickstartPorts, wishes: Wishes): Promise<Outcome> {
  const files = new NewFiles();
  try {
    return await new Run(ports, wishes, files).go();
  } catch (error) {
    await files.takeBack();
    throw error;
  }
}

class Run {
  readonly #made: string[] = [];
  readonly #kept: string[] = [];
  readonly #configFile: string;

  constructor(
    private readonly ports: QuickstartPorts,
    private readonly wishes: Wishes,
    private readonly files: NewFiles,
  ) {
    this.#configFile = join(wishes.folder, CONFIG_NAME);
  }

  async go(): Promise<Outcome> {
    const { ports, wishes } = this;
    const { folder, domain, address } = wishes;
    const before = await exists(this.#configFile) ? this.#load(this.#configFile) : undefined;
    await this.files.folder(folder);
    const hostname = before?.hostname ?? wishes.hostname;
    for (const kind of HOST_KEYS) await this.#hostKey(kind, hostname);
    const dkim = before?.dkim.has(domain) ? [] : await this.#dkimKeys();
    const mx = wishes.mx ?? hostname;
    const policyFile = `mta-sts.${domain}.txt`;
    await this.#file(policyFile, () => stsPolicy([mx]));
    const config = before ?? await this.#writeConfig(hostname, dkim);
    if (before) {
      const named = before.dkim.get(domain) ?? [];
      this.#kept.push(...named.map(({ keyFile }) => relative(folder, keyFile)), CONFIG_NAME);
    }
    await this.#store(config.dataDir);
    const subject = subjectOf(config, domain, {
      interfaces: ports.interfaces,
      publicAddresses: wishes.publicAddresses,
    });
    const records = recordsFor({
      subject: this.#withKeys(subject, dkim),
      address,
      mx,
      hostKeys: this.#hostKeys(config),
      policy: await Deno.readTextFile(join(folder, policyFile)),
    });
    // The last step: an account cannot be taken back, and nothing is left that could fail.
    const account = await this.#account(config);
    return {
      config: this.#configFile,
      hostname,
      made: this.#made,
      kept: this.#kept,
      account,
      ...(before && dkim.length > 0 ? { add: dkimText(domain, dkim) } : {}),
      records,
    };
  }

  #load(file: string): Config {
    return loadConfig({ file, env: this.ports.env });
  }

  /** Makes a file in the folder, where there is none. */
  async #file(
    name: string,
    text: () => string | Promise<string>,
    check?: (temporary: string) => void,
  ): Promise<void> {
    const path = join(this.wishes.folder, name);
    const made = !await exists(path) && await this.files.file(path, await text(), check);
    (made ? this.#made : this.#kept).push(name);
  }

  async #hostKey(kind: HostKeyKind, hostname: string): Promise<void> {
    const { folder } = this.wishes;
    await this.files.folder(join(folder, "tls"));
    const name = (extension: string) => `tls/${kind}.${extension}`;
    await this.#file(name("key"), () => makeHostKey(kind));
    const key = await Deno.readTextFile(join(folder, name("key")));
    await this.#file(name("crt"), () => selfSigned(kind, key, hostname, this.ports.now()));
    await this.#file(name("csr"), () => certificateRequest(kind, key, hostname));
  }

  /** The keys in the folder, made anew where there are none: selectors tell the day. */
  async #dkimKeys(): Promise<{ selector: string; keyFile: string }[]> {
    const { folder, domain } = this.wishes;
    await this.files.folder(join(folder, "dkim"));
    const suffix = `._domainkey.${domain}.pem`;
    const found: string[] = [];
    for await (const { name } of Deno.readDir(join(folder, "dkim"))) {
      if (name.endsWith(suffix)) found.push(name.slice(0, -suffix.length));
    }
    const day = new Date(this.ports.now()).toISOString().slice(0, 10).replaceAll("-", "");
    const keys: { selector: string; keyFile: string }[] = [];
    for (const algorithm of ["rsa", "ed25519"] satisfies DkimAlgorithm[]) {
      const selector = found.sort().find((name) => name.endsWith(algorithm)) ??
        `${day}-${algorithm}`;
      const keyFile = `dkim/${selector}${suffix}`;
      await this.#file(keyFile, () => dkimKeyPem(makeDkimKey(algorithm)));
      keys.push({ selector, keyFile });
    }
    return keys;
  }

  async #writeConfig(
    hostname: string,
    dkim: readonly { readonly selector: string; readonly keyFile: string }[],
  ): Promise<Config> {
    const text = configText({
      ...this.wishes,
      hostname,
      dkim,
      certFile: "tls/ecdsa.crt",
      keyFile: "tls/ecdsa.key",
    });
    await this.#file(CONFIG_NAME, () => text, (temporary) => void this.#load(temporary));
    return this.#load(this.#configFile);
  }

  /** The store of a new installation, with the key that signs its checkpoints. */
  async #store(dataDir: string): Promise<void> {
    const database = databasePath(dataDir);
    const key = keyPath(dataDir);
    const made = !await exists(database);
    if (made) {
      await this.files.tree(dataDir);
      await this.files.expect(
        ...[bodiesPath(dataDir), archivePath(dataDir), lockPath(dataDir)],
        ...[database, `${database}-wal`, `${database}-shm`, key, publicKeyPath(dataDir)],
      );
      const { close } = await openStore({ dataDir, clock: this.ports.clock });
      await close();
    }
    const names = [database, key].map((path) => relative(this.wishes.folder, path));
    (made ? this.#made : this.#kept).push(...names);
  }

  /** With the keys that a config which was kept does not name yet. */
  #withKeys(
    subject: Subject,
    dkim: readonly { readonly selector: string; readonly keyFile: string }[],
  ): Subject {
    if (subject.keys.length > 0) return subject;
    const keys = dkim.map(({ selector, keyFile }) => ({
      selector,
      key: readDkimKey(join(this.wishes.folder, keyFile)),
    }));
    return { ...subject, keys };
  }

  /** Those of the listeners, then those that lie ready. */
  #hostKeys(config: Config): Uint8Array[] {
    const inUse = config.listeners.flatMap((listener) =>
      listener.protocol !== "http" && listener.certificate ? [listener.certificate.keyFile] : []
    );
    const ready = HOST_KEYS.map((kind) => join(this.wishes.folder, "tls", `${kind}.key`));
    const digests = [...inUse, ...ready].map((file) => spkiDigest(file));
    return digests.filter((one, n) =>
      digests.findIndex((other) => Buffer.from(other).equals(one)) === n
    );
  }

  async #account({ accounts, dataDir }: Config): Promise<Outcome["account"]> {
    const { address } = this.wishes;
    const mailbox = parseMailbox(address);
    const own = [...accounts, ...readAccounts(dataDir)].find(({ name, addresses }) =>
      name === address || addresses.some((pattern) => matchesAddress(pattern, mailbox))
    );
    if (own) {
      this.#kept.push(`account ${own.name}`);
      return { name: own.name };
    }
    const password = newPassword();
    const { random, cost } = this.ports;
    const hash = serializeCredentials(await deriveCredentials(password, random, cost));
    await this.files.expect(join(dataDir, ACCOUNTS_FILE), join(dataDir, LOCK_FILE));
    await changeAccounts(dataDir, (all) => {
      all[address] = { addresses: [address], password_hash: hash };
    });
    this.#made.push(`account ${address}`);
    return { name: address, password };
  }
}
