/** Scalars that the data of many events are made of. */
import { z } from "zod";

/** RFC 3339, UTC, milliseconds: `2026-01-31T09:30:00.000Z`. Sorts as text. */
export const Timestamp = z.string().regex(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/);
export const Sha256 = z.string().regex(/^[0-9a-f]{64}$/);
export const Count = z.int().min(0);

/** Who did it and why: of every act of an operator. */
export const Act = { who: z.string(), why: z.string() };
