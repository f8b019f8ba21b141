/** Composes reports that say little, through the body store as the real composer does. */
import type { BodyStore, ComposedReport, Reporter, ReportRequest } from "../../actors/ports.ts";

export class PlainReporter implements Reporter {
  constructor(readonly bodies: BodyStore) {}

  async compose({ kind, stream, message, attempt }: ReportRequest): Promise<ComposedReport> {
    const messageId = `<${stream}.${kind}@queue.example>`;
    const draft = this.bodies.create();
    const text = `Message-ID: ${messageId}\r\nTo: <${message.mailFrom}>\r\n\r\n` +
      `${kind}: ${message.rcptTo}, attempt ${attempt}\r\n`;
    try {
      await draft.write(new TextEncoder().encode(text));
      const body = await draft.finish();
      return { body, messageId, has8bit: false, smtputf8: false, discard: () => draft.discard() };
    } catch (cause) {
      await draft.discard();
      throw cause;
    }
  }
}
