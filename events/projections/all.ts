/** The projections that the embedded store keeps in step with its log. */
import type { Projection, Row } from "../projection.ts";
import { archiveProjection } from "./archive.ts";
import { idempotencyProjection } from "./idempotency.ts";
import { mtaStsProjection } from "./mta_sts.ts";
import { queueProjection } from "./queue.ts";
import { suppressionProjection } from "./suppression.ts";
import { tlsReportsProjection } from "./tls_reports.ts";
import { webhooksProjection } from "./webhooks.ts";

/** Each knows the shape of its own rows; the log hands them on without looking in. */
const asRows = <R extends Row>(projection: Projection<R>): Projection<Row> =>
  projection as unknown as Projection<Row>;

export const PROJECTIONS: readonly Projection<Row>[] = [
  asRows(queueProjection),
  asRows(idempotencyProjection),
  asRows(mtaStsProjection),
  asRows(tlsReportsProjection),
  asRows(suppressionProjection),
  asRows(webhooksProjection),
  asRows(archiveProjection),
];
