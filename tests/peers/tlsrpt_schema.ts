/** The JSON of a TLS report as RFC 8460, section 4.4, has it, and its figures as section 4.5. */
import { Ajv2020 } from "ajv/dist/2020.js";

const text = { type: "string", minLength: 1 } as const;
const texts = { type: "array", items: text } as const;
const count = { type: "integer", minimum: 0 } as const;
const time = { type: "string", pattern: "^\\d{4}-\\d{2}-\\d{2}T\\d{2}:\\d{2}:\\d{2}Z$" } as const;

/** An object with these fields and no others; names that end in "?" may be missing. */
function object(fields: Readonly<Record<string, unknown>>) {
  const properties = Object.fromEntries(
    Object.entries(fields).map(([name, schema]) => [name.replace("?", ""), schema]),
  );
  const required = Object.keys(fields).filter((name) => !name.endsWith("?"));
  return { type: "object", properties, required, additionalProperties: false };
}

/** Section 4.3. */
const RESULT_TYPES = [
  "starttls-not-supported",
  "certificate-host-mismatch",
  "certificate-expired",
  "certificate-not-trusted",
  "validation-failure",
  "tlsa-invalid",
  "dnssec-invalid",
  "dane-required",
  "sts-policy-fetch-error",
  "sts-policy-invalid",
  "sts-webpki-invalid",
];

const SCHEMA = object({
  "organization-name": text,
  "date-range": object({ "start-datetime": time, "end-datetime": time }),
  "contact-info": text,
  "report-id": text,
  "policies": {
    type: "array",
    minItems: 1,
    items: object({
      "policy": object({
        "policy-type": { enum: ["tlsa", "sts", "no-policy-found"] },
        "policy-string?": texts,
        "policy-domain": text,
        "mx-host?": texts,
      }),
      "summary": object({
        "total-successful-session-count": count,
        "total-failure-session-count": count,
      }),
      "failure-details?": {
        type: "array",
        minItems: 1,
        items: object({
          "result-type": { enum: RESULT_TYPES },
          "sending-mta-ip?": text,
          "receiving-mx-hostname?": text,
          "receiving-mx-helo?": text,
          "receiving-ip?": text,
          "failed-session-count": { ...count, minimum: 1 },
          "additional-information?": text,
          "failure-reason-code?": text,
        }),
      },
    }),
  },
});

const ajv = new Ajv2020({ allErrors: true });
const validate = ajv.compile(SCHEMA);

/** What is wrong with a report; undefined when nothing is. */
export const faultsOf = (report: unknown): string | undefined =>
  validate(report) ? undefined : ajv.errorsText(validate.errors);
