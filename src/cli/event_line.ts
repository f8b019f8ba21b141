/** An event of a message as one line for people: what it says, without its envelope. */
import type { StoredEvent } from "../../events/catalogue.ts";
import { because, hostResult, nextHop, replyText, waitedFor } from "./message_story.ts";
import { gathered } from "./security_story.ts";
import { address, duration, octets } from "./terminal.ts";

export function eventLine(event: StoredEvent): string {
  switch (event.type) {
    case "Enqueued": {
      const { account, mailFrom, rcptTo, size, source, due, priority, expires } = event.data;
      const whose = account === null ? "" : ` for account ${account}`;
      const urgency = priority === undefined ? "" : `, priority ${priority}`;
      const deadline = expires === undefined ? "" : `, not after ${expires}`;
      return `from ${address(mailFrom)} to ${rcptTo}, ${
        octets(size)
      }, by ${source.kind}${whose}, due ${due}${urgency}${deadline}`;
    }
    case "AttemptStarted":
      return `attempt ${event.data.attempt}, the next one at ${event.data.next} should it fail${
        waitedFor(event.data.waited)
      }`;
    case "TransportChosen":
      return `${event.data.transport} (${event.data.type}): ${because(event.data)}`;
    case "DestinationsResolved":
      return nextHop(event.data);
    case "TLSAGathered":
      return gathered(event.data).join("; ");
    case "HostTried":
      return hostResult(event.data);
    case "Delivered": {
      const { host, address, reply, queued, reportDue } = event.data;
      return `to ${host} [${address}] after ${duration(queued)}: ${replyText(reply)}` +
        reportAt(reportDue);
    }
    case "Failed": {
      const { permanent, result, reason, next, reportDue } = event.data;
      const kind = permanent ? "for good" : "for the time being";
      return `${kind} (${result}): ${reason}${next === undefined ? "" : `; next ${next}`}` +
        reportAt(reportDue);
    }
    case "DSNPostponed": {
      const { kind, due, until, why } = event.data;
      const reason = why === undefined ? "" : `; ${why}`;
      return `${kind}: at ${due}, with other recipients; tried until ${until}${reason}`;
    }
    case "DSNSent": {
      const { kind, dsn, notSent } = event.data;
      return dsn === undefined ? `${kind}: none, ${notSent ?? "no reason"}` : `${kind}: ${dsn}`;
    }
    case "DestinationDown":
      return `since ${event.data.since}, probed at ${event.data.until}: ${event.data.why}`;
    case "DestinationUp":
      return `was down since ${event.data.since}`;
    case "MtaStsPolicyStored": {
      const { domain, id, mode, mx, maxAge } = event.data;
      return `${domain}: ${mode}, ${mx.join(" ")} (id ${id}), for ${duration(maxAge * 1_000)}`;
    }
    case "TLSReportStarted":
      return `to ${event.data.domain} about ${event.data.day}`;
    case "TLSReportSent": {
      const { domain, day, to, notSent } = event.data;
      const went = to.map(({ uri, failed }) => failed === undefined ? uri : `${uri}: ${failed}`);
      return `to ${domain} about ${day}: ${notSent ?? went.join(", ")}`;
    }
    case "AddressSuppressed": {
      const { address: whose, account, cause, who, why, expires } = event.data;
      const scope = account === undefined ? "" : ` for account ${account}`;
      const until = expires === undefined ? "" : `, until ${expires}`;
      return `${whose}${scope} (${cause}), by ${who}: ${why}${until}`;
    }
    case "SuppressionLifted": {
      const { address: whose, account, who, why } = event.data;
      return `${whose}${account === undefined ? "" : ` for account ${account}`}, by ${who}: ${why}`;
    }
    case "WebhookAdvanced": {
      const { endpoint, upTo, told, givenUp } = event.data;
      return `${endpoint} up to position ${upTo}, ${told} told, ${givenUp} given up`;
    }
    case "WebhookParked":
    case "WebhookResumed":
      return `${event.data.endpoint}, by ${event.data.who}: ${event.data.why}`;
    case "StreamsArchived": {
      const { file, streams, events, sha256 } = event.data;
      return `${streams} streams, ${events} events in ${file} (SHA-256 ${sha256})`;
    }
    case "StreamsPruned":
      return `${event.data.file}${event.data.left === 0 ? "" : `, ${event.data.left} left`}`;
    case "Held":
    case "Cancelled":
    case "IntakePaused":
    case "IntakeResumed":
      return `by ${event.data.who}: ${event.data.why}`;
    case "HoldRuleAdded":
    case "HoldRuleRemoved":
      return `rule ${event.data.id}, by ${event.data.who}: ${event.data.why}`;
    case "Released":
    case "Rescheduled":
      return `by ${event.data.who}: ${event.data.why}; due ${event.data.due}`;
    case "TransportAssigned": {
      const { who, why, transport } = event.data;
      return `${transport ?? "none"}, by ${who}: ${why}`;
    }
  }
}

const reportAt = (due: string | undefined): string =>
  due === undefined ? "" : `; report to the sender at ${due}`;
