/**
 * Messages that have left the store for the archive: found by their id, and shown as they ended.
 */
import { ArchiveDamaged } from "../../events/archive.ts";
import { type ArchiveLookup, LookupBusy } from "../../events/archive_lookup.ts";
import type { StoredEvent } from "../../events/catalogue.ts";
import { queueProjection, type QueueRow } from "../../events/projections/queue.ts";
import { UnreadableStream } from "../../events/store.ts";
import { mayKnow, type Principal } from "./operation.ts";
import { RequestProblem, unavailable } from "./problem.ts";

export interface ArchivedMessage {
  /** As the queue had it when it left. */
  readonly row: QueueRow;
  readonly events: readonly StoredEvent[];
  /** Name in the folder `archive`. */
  readonly file: string;
}

/** Seconds after which somebody may look again who was turned away. */
const AGAIN = 5;

/** @throws what ArchiveLookup.find throws */
export async function archivedMessage(
  archive: Pick<ArchiveLookup, "find">,
  id: string,
  signal?: AbortSignal,
): Promise<ArchivedMessage | undefined> {
  const found = await archive.find(id, signal);
  const row = found?.events.reduce<QueueRow | undefined>(queueProjection.apply, undefined);
  return found && row && { ...found, row };
}

/**
 * The same for a request, of a message that the principal may know of. Ends when the client goes.
 * @throws RequestProblem 500 when the file is damaged, 503 when many are looking already
 */
export async function archivedFor(
  archive: Pick<ArchiveLookup, "find">,
  id: string,
  principal: Principal,
  request: Request,
): Promise<ArchivedMessage | undefined> {
  try {
    const found = await archivedMessage(archive, id, request.signal);
    return found && mayKnow(principal, found.row.account) ? found : undefined;
  } catch (error) {
    if (request.signal.aborted) throw clientGone();
    if (error instanceof LookupBusy) throw unavailable(error.message, AGAIN);
    if (error instanceof ArchiveDamaged || error instanceof UnreadableStream) {
      throw new RequestProblem({
        status: 500,
        title: "Unreadable archive",
        detail: `${error.message}; \`audit verify\` shows more, and a backup may have it whole`,
      });
    }
    throw error;
  }
}

/** Nobody reads it, and it is no fault that the log has to tell of. */
const clientGone = (): RequestProblem =>
  new RequestProblem({ status: 499, title: "The client closed the request" });

/** Why nothing can be done with such a message. */
export const whyNot = ({ row, file }: ArchivedMessage): string =>
  `the message is ${row.state}, and was archived in ${file}: nothing more can be done with it`;
