// Leader election with node-redis: any number of these processes, at most one of which leads.
//
//     cd examples/javascript && npm install && node leader_election.mjs redis://127.0.0.1:7400 jobs/leader /tmp/store
//
// Start several. One prints `leader token=...` and works; the others wait, without polling. Kill the
// leader, and the next one leads a few milliseconds later. What a leader writes carries its token,
// and the store refuses one that is older than another it has seen: a leader that stood still while
// its lease ran out cannot do harm. That check is what makes an election safe.

import { randomBytes } from "node:crypto";
import { mkdirSync, readdirSync, writeFileSync } from "node:fs";
import { setTimeout } from "node:timers/promises";
import { createClient } from "redis";

const LEASE_MS = 1000;

/**
 * What has to be safe: a directory with a file for each leader there was, named by its token. The
 * file with the largest token is what counts, so whoever has an older one can change nothing, and
 * is told so. With a database it is one statement: UPDATE ... WHERE token <= :mine.
 */
class Store {
  constructor(directory) {
    this.directory = directory;
    mkdirSync(directory, { recursive: true });
  }

  /** Tokens are strings of digits: a number of JavaScript would lose the low bits. */
  write(token, text) {
    const mine = token.padStart(20, "0");
    const latest = readdirSync(this.directory).sort().pop() ?? mine;
    if (latest > mine) {
      throw new Error(`fenced: the store has token ${BigInt(latest)}, mine is ${token}`);
    }
    writeFileSync(`${this.directory}/${mine}`, text);
  }
}

/** One connection. One that is lost is an error: after a reconnect the names would be another's. */
async function connect(url, onLost) {
  const client = createClient({ url, socket: { reconnectStrategy: false }, disableOfflineQueue: true });
  client.on("error", onLost);
  return client.connect();
}

/** A session that ends with its connection, or where it is not renewed. */
class Session {
  static async open(url, onLost) {
    const self = new Session();
    self.client = await connect(url, onLost);
    const node = randomBytes(8).readBigUInt64LE().toString();
    const words = ["SESSION.OPEN", node, "BARE", "LEASE", String(LEASE_MS)];
    const opened = await self.client.sendCommand(words);
    const field = (name) => opened[opened.indexOf(name) + 1];
    [self.id, self.secret] = [field("session"), field("secret")];
    // A connection that waits for a name sends nothing else, so another one renews.
    self.renewals = await connect(url, onLost);
    const renew = () =>
      self.renewals.sendCommand(["SESSION.RENEW", self.id, self.secret]).catch(onLost);
    setInterval(renew, LEASE_MS / 3);
    return self;
  }

  /** The token under which this session holds the name, once it does; null: the time is over. */
  async waitFor(name, ms = 0) {
    const granted = await this.client.sendCommand(["PORT.WAIT", name, String(ms)]);
    return granted && granted[2];
  }
}

const [url, name, directory] = process.argv.slice(2);
const store = new Store(directory ?? "/tmp/leader-election-store.d");
const end = (why) => {
  console.log(why);
  process.exit(3);
};
const session = await Session.open(url ?? "redis://127.0.0.1:7400", (why) =>
  end(`lost the session: ${why.message}`),
);
console.log(`waiting session=${session.id}`);
try {
  const token = await session.waitFor(name ?? "jobs/leader");
  console.log(`leader token=${token}`);
  for (;;) {
    store.write(token, `work of ${session.id}`);
    await setTimeout(50);
  }
} catch (why) {
  end(why.message);
}
