/**
 * What a sender can do about a failure, in a sentence: by the class of the failure (see
 * actors/classification), and where the status of RFC 3463 says more, by that.
 */
import type { EventData } from "../../events/catalogue.ts";

type Class = NonNullable<EventData<"Failed">["class"]>;

const BY_CLASS: Readonly<Record<Class, string>> = {
  "unknown-user":
    "There is no such mailbox. Check the address for typing errors, or ask the recipient by other " +
    "means for the one in use.",
  "mailbox-full":
    "The recipient's mailbox takes nothing more. Tell the recipient by other means, or send the " +
    "message again later.",
  "policy":
    "The recipient's server does not take this mail by its rules. The words above may say which; " +
    "the recipient or the recipient's postmaster can let it pass.",
  "rate-limited":
    "The recipient's server takes no more mail from here for the time being. Send the message " +
    "again later.",
  "authentication":
    "The recipient's server could not verify that the mail comes from your domain. Whoever runs " +
    "your domain has to look after its SPF, DKIM and DMARC records.",
  "content":
    "The recipient's server does not take a message of this content or size. Send it without " +
    "attachments, or put in other words.",
  "login":
    "Our account at the server that passes mail on for us was refused. That is for the postmaster " +
    "here to mend; send the message again when that is done.",
  "dns":
    "The mail server of the recipient's domain could not be found. Check what stands after the @ " +
    "for typing errors.",
  "tls": "No connection could be made that is as well protected as it has to be. The recipient's " +
    "postmaster has to look after the certificate and the TLS of that server.",
  "network":
    "The recipient's server could not be reached. Send the message again later, and tell the " +
    "recipient by other means if it lasts.",
  "other": "The words above may say what to change. If they do not, send the message again later.",
};

/** Where the subject and detail of RFC 3463 say more than the class. */
const BY_STATUS: Readonly<Record<string, string>> = {
  "1.2": "There is no such domain. Check what stands after the @ for typing errors.",
  "1.3": "The address is not well formed. Check it for typing errors.",
  "1.10": "The domain of this address takes no mail at all. Ask the recipient for another address.",
  "2.1":
    "The mailbox is there, and does not take mail any more. Ask the recipient for another address.",
  "2.3": "The message is larger than this mailbox takes. Send it without large attachments.",
  "3.4":
    "The message is larger than the recipient's server takes. Send it without large attachments.",
  "4.6": "The message goes round in circles between servers. The postmasters have to mend that.",
  "4.7":
    "It could not be delivered in time. Send the message again if it is of use still, or tell the " +
    "recipient by other means.",
  "6.7":
    "The recipient's server does not know addresses with letters like those in this one. Ask " +
    "the recipient for another address.",
  "7.30":
    "You asked for delivery over verified TLS alone, and the recipient's server cannot do that. " +
    "Send the message without asking so, or ask the recipient for another address.",
};

/** What the sender can do. `status` is that of RFC 3463. */
export function advice(failure: EventData<"Failed">, status: string): string {
  const [, subject = "0", detail = "0"] = status.split(".");
  return BY_STATUS[`${subject}.${detail}`] ?? BY_CLASS[failure.class ?? byCode(subject)];
}

/** For failures that bear no class: of a fault or a crash, and in logs without them. */
function byCode(subject: string): Class {
  if (subject === "1") return "unknown-user";
  if (subject === "2") return "mailbox-full";
  if (subject === "4") return "network";
  if (subject === "7") return "policy";
  return "other";
}
