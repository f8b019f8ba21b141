/**
 * Verifies a trail: the chain of every stream, positions without gap, and the checkpoints (count,
 * root, chain, signature). Everything that is wrong is named: where, and what.
 *
 * What it cannot know: whether the newest events and checkpoints were cut off together. Keep a
 * checkpoint, or an export, somewhere else to be able to tell.
 */
import type { KeyObject } from "node:crypto";
import { chainFindings, GENESIS } from "../chain.ts";
import { checkpointHash, signedBy } from "../checkpoints.ts";
import type { Checkpoint, RawEvent, StreamHead } from "../engine.ts";
import { MerkleTree } from "../merkle.ts";
import type { ExportEntry } from "./jsonl.ts";
import { isPartial, type TrailEntry } from "./trail.ts";

export interface Finding {
  readonly position?: number;
  readonly stream?: string;
  readonly version?: number;
  /** Number of the checkpoint. */
  readonly checkpoint?: number;
  /** Line of the export. */
  readonly line?: number;
  readonly what: string;
}

export interface Verdict {
  /** True when nothing is wrong with what could be verified. */
  readonly ok: boolean;
  readonly events: number;
  readonly checkpoints: number;
  /** Events behind the last checkpoint: only their own chain vouches for them. */
  readonly uncovered: number;
  readonly lastCheckpoint?: Checkpoint;
  /** The first findings, at most 1,000, and how many there are in all. */
  readonly findings: readonly Finding[];
  readonly found: number;
  /** What could not be verified, and why. */
  readonly notes: readonly string[];
}

const MOST_FINDINGS = 1000;

/**
 * Verifies the trail of a whole log. Keeps the head of every stream in memory, some 200 octets.
 * @param damaged files of the archive, filled while the trail is read; each is a finding
 */
export async function verifyLog(
  entries: AsyncIterable<TrailEntry>,
  publicKey: KeyObject | undefined,
  damaged: readonly { readonly message: string }[] = [],
): Promise<Verdict> {
  const verifier = new Verifier(publicKey, false);
  for await (const entry of entries) verifier.take(entry);
  for (const { message: what } of damaged) verifier.report({ what });
  return verifier.verdict();
}

/** The same but for the chains of the streams, in an amount of memory that does not grow. */
export async function verifyCheckpoints(
  entries: AsyncIterable<TrailEntry>,
  publicKey: KeyObject | undefined,
): Promise<Verdict> {
  const verifier = new Verifier(publicKey, false, false);
  for await (const entry of entries) verifier.take(entry);
  return verifier.verdict();
}

/** Verifies an export as far as it goes: of a filtered one, what is there. */
export async function verifyExport(
  entries: AsyncIterable<ExportEntry>,
  publicKey: KeyObject | undefined,
): Promise<Verdict> {
  let verifier: Verifier | undefined;
  for await (const entry of entries) {
    if ("filter" in entry) {
      verifier = new Verifier(publicKey, isPartial(entry.filter));
      continue;
    }
    if (!verifier) {
      verifier = new Verifier(publicKey, false);
      verifier.report({ line: 1, what: "the export does not begin with its header" });
    }
    if ("bad" in entry) verifier.report(entry.bad);
    else verifier.take(entry);
  }
  if (!verifier) {
    verifier = new Verifier(publicKey, false);
    verifier.report({ what: "the export is empty" });
  }
  return verifier.verdict();
}

class Verifier {
  readonly #heads = new Map<string, StreamHead>();
  readonly #findings: Finding[] = [];
  #found = 0;
  #events = 0;
  #checkpoints = 0;
  #position = 0;
  #last: Checkpoint | undefined;
  /** Events since the last checkpoint. */
  #tree = MerkleTree.EMPTY;
  /** Streams of a filtered export that do not begin with their first event. */
  #headless = 0;

  constructor(
    private readonly publicKey: KeyObject | undefined,
    private readonly partial: boolean,
    private readonly chains = true,
  ) {}

  report(finding: Finding): void {
    this.#found += 1;
    if (this.#findings.length < MOST_FINDINGS) this.#findings.push(finding);
  }

  take(entry: TrailEntry): void {
    if ("event" in entry) this.#takeEvent(entry.event);
    else this.#takeCheckpoint(entry.checkpoint);
  }

  #takeEvent(event: RawEvent): void {
    this.#events += 1;
    const { position, stream, version } = event;
    if (position <= this.#position) {
      this.report({ position, stream, version, what: `stands behind position ${this.#position}` });
    } else if (!this.partial && position !== this.#position + 1) {
      const gap = position - this.#position === 2
        ? `position ${this.#position + 1} is missing`
        : `positions ${this.#position + 1} to ${position - 1} are missing`;
      this.report({ position, stream, version, what: gap });
    }
    this.#position = Math.max(this.#position, position);

    if (this.chains) this.#takeLink(event);
    if (!this.partial) this.#tree = this.#tree.add([event.hash]);
  }

  #takeLink(event: RawEvent): void {
    const { position, stream, version } = event;
    let before = this.#heads.get(stream);
    if (!before && this.partial && version > 1) {
      this.#headless += 1;
      before = { version: version - 1, hash: event.prev };
    }
    for (const what of chainFindings(event, before)) {
      this.report({ position, stream, version, what });
    }
    this.#heads.set(stream, { version, hash: event.hash });
  }

  #takeCheckpoint(checkpoint: Checkpoint): void {
    this.#checkpoints += 1;
    const last = this.#last;
    const report = (what: string) => this.report({ checkpoint: checkpoint.number, what });
    const follows = (last?.number ?? 0) + 1;
    if (!this.partial || last?.number === checkpoint.number - 1) {
      if (checkpoint.number !== follows) {
        report(`follows checkpoint ${follows - 1}, not ${follows}`);
      }
      if (checkpoint.prev !== (last ? checkpointHash(last) : GENESIS)) {
        report("prev is not the hash of the checkpoint before it");
      }
      if (checkpoint.from !== (last?.to ?? 0) + 1) {
        report(`covers from position ${checkpoint.from}, not ${(last?.to ?? 0) + 1}`);
      }
    }
    if (!this.partial) {
      if (this.#position < checkpoint.to) {
        report(`covers up to position ${checkpoint.to}, the events end at ${this.#position}`);
      }
      if (this.#tree.size !== checkpoint.count) {
        report(
          `covers ${checkpoint.count} events from position ${checkpoint.from} to ` +
            `${checkpoint.to}, there are ${this.#tree.size}`,
        );
      }
      if (this.#tree.root() !== checkpoint.root) {
        report(
          `root does not match the events from position ${checkpoint.from} to ${checkpoint.to}`,
        );
      }
    }
    if (this.publicKey && !signedBy(checkpoint, this.publicKey)) {
      report("signature does not verify with the public key");
    }
    this.#last = checkpoint;
    this.#tree = MerkleTree.EMPTY;
  }

  verdict(): Verdict {
    const notes: string[] = [];
    if (!this.publicKey && this.#checkpoints > 0) {
      notes.push("no public key: the signatures of the checkpoints were not verified");
    }
    if (this.partial) {
      notes.push(
        "filtered export: that no event is missing, and the counts and roots of checkpoints, " +
          "can only be verified on the whole log",
      );
    }
    if (this.#headless > 0) {
      notes.push(
        `${this.#headless} streams do not begin with their first event: the prev of the first ` +
          `one exported was not verified`,
      );
    }
    return {
      ok: this.#found === 0,
      events: this.#events,
      checkpoints: this.#checkpoints,
      uncovered: this.partial ? 0 : this.#tree.size,
      lastCheckpoint: this.#last,
      findings: this.#findings,
      found: this.#found,
      notes,
    };
  }
}
