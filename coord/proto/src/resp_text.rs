//! RESP commands that are answered at once: greetings, the connection, and what this server is.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::ops::Range;

use ringway_core::limits::AUTH_WITHIN;
use ringway_core::rng::Rng;
use ringway_core::{ConnId, Region, ShardId};

use crate::access::Access;
use crate::conn::{ClientInfo, Speech};
use crate::env::Env;
use crate::resp::command;
use crate::resp::request::{Client, Cluster, Hello, Login, Request};
use crate::resp::scripts::of_digest;
use crate::resp::{ArgList, Code, Version, Writer};
use crate::sessions::Principal;
use crate::shard::Shard;
use crate::stats::verb_index;
use crate::wire::{op, status};

impl<R: Region, A: Access> Shard<R, A> {
    /// Answers a command that needs no op. Everything before it has been answered.
    pub(crate) fn answer_at_once(&mut self, id: ConnId, request: Request<'_>, env: &mut impl Env) {
        self.stats.verbs[verb_index(op::SERVER)] += 1;
        let version = self.resp_version(id);
        let known = self.conns[id.index as usize].grantee.is_some();
        let free = matches!(
            request,
            Request::Hello(_) | Request::Auth(_) | Request::Quit | Request::Ping(_)
        );
        if !known && !free {
            self.stats.refused.count(status::NOAUTH);
            let text = "authentication required: AUTH user password";
            return Writer::new(env.out(id), version).error(Code::NoAuth, text);
        }
        match request {
            Request::Hello(hello) => return self.hello(id, hello, env),
            Request::Auth(login) => return self.auth(id, login, env),
            Request::Client(client) => return self.client(id, client, env),
            Request::Cluster(cluster) => return self.cluster(id, cluster, env),
            Request::Quit => {
                Writer::new(env.out(id), version).ok();
                return self.close(id, env);
            }
            Request::Unwatch(filters) if version == Version::Resp3 => {
                let ended = self.unwatch(id, filters.map(|filters| filters.iter()), env);
                return Writer::new(env.out(id), version).integer(ended as i64);
            }
            Request::Reset => {
                self.watcher_closed(id, env);
                let conn = &mut self.conns[id.index as usize];
                conn.speech = Speech::Resp2;
                conn.client = None;
                conn.grantee = (!self.access.required()).then_some(0);
                if conn.grantee.is_none() {
                    env.call_overdue(id, AUTH_WITHIN);
                }
                return Writer::new(env.out(id), Version::Resp2).simple("RESET");
            }
            _ => {}
        }
        let writer = &mut Writer::new(env.out(id), version);
        match request {
            Request::Watch { .. } | Request::Unwatch(_) => {
                writer.error(Code::Unsupported, "changes are told as pushes of RESP3: HELLO 3");
            }
            Request::Ping(None) => writer.simple("PONG"),
            Request::Ping(Some(text)) | Request::Echo(text) => writer.bulk(text),
            Request::Describe(describe) => command::reply(describe, writer),
            Request::ScriptLoad(digest) => writer.bulk_text(Hex(&digest)),
            Request::ScriptExists(digests) => {
                writer.array(digests.len());
                for digest in digests.iter() {
                    writer.integer(i64::from(of_digest(digest).is_some()));
                }
            }
            Request::Info(sections) => {
                let sees_all = self.check_sees_all(id).is_ok();
                writer.verbatim(&self.info(sections, sees_all));
            }
            Request::ConfigGet(patterns) => self.config_get(patterns, writer),
            Request::Time => self.time(writer),
            Request::ShardMap => self.shard_map_resp(writer),
            Request::Select | Request::Accepted | Request::ScriptFlush => writer.ok(),
            _ => unreachable!("every other request is an op"),
        }
    }

    fn hello(&mut self, id: ConnId, hello: Hello<'_>, env: &mut impl Env) {
        if let Some(login) = hello.login
            && self.authenticate(id, login.user, login.password) != status::OK
        {
            return self.wrong_pass(id, env);
        }
        if self.conns[id.index as usize].grantee.is_none() {
            self.stats.refused.count(status::NOAUTH);
            let text = "authenticate: HELLO 3 AUTH user password";
            let version = self.resp_version(id);
            return Writer::new(env.out(id), version).error(Code::NoAuth, text);
        }
        if hello.version == Some(Version::Resp2) {
            // It hears nothing any more.
            self.watcher_closed(id, env);
        }
        let conn = &mut self.conns[id.index as usize];
        match hello.version {
            Some(Version::Resp2) => conn.speech = Speech::Resp2,
            Some(Version::Resp3) => conn.speech = Speech::Resp3,
            None => {}
        }
        if let Some(name) = hello.name {
            conn.client.get_or_insert_default().name = name.into();
        }
        let version = self.resp_version(id);
        let writer = &mut Writer::new(env.out(id), version);
        command::hello_reply(env!("CARGO_PKG_VERSION"), client_id(self.id(), id), writer);
    }

    fn auth(&mut self, id: ConnId, login: Login<'_>, env: &mut impl Env) {
        if self.authenticate(id, login.user, login.password) != status::OK {
            return self.wrong_pass(id, env);
        }
        let version = self.resp_version(id);
        Writer::new(env.out(id), version).ok();
    }

    fn wrong_pass(&mut self, id: ConnId, env: &mut impl Env) {
        self.stats.refused.count(status::REFUSED);
        let text = "invalid username-password pair or user is disabled.";
        let version = self.resp_version(id);
        Writer::new(env.out(id), version).error(Code::WrongPass, text);
    }

    fn client(&mut self, id: ConnId, client: Client<'_>, env: &mut impl Env) {
        let version = self.resp_version(id);
        let shard = self.id();
        let conn = &mut self.conns[id.index as usize];
        let writer = &mut Writer::new(env.out(id), version);
        match client {
            Client::Id => writer.integer(client_id(shard, id) as i64),
            Client::GetName => match &conn.client {
                Some(info) if !info.name.is_empty() => writer.bulk(&info.name),
                _ => writer.null(),
            },
            Client::SetName(name) => {
                conn.client.get_or_insert_default().name = name.into();
                writer.ok();
            }
            Client::LibraryName(name) => {
                conn.client.get_or_insert_default().lib_name = name.into();
                writer.ok();
            }
            Client::LibraryVersion(version) => {
                conn.client.get_or_insert_default().lib_version = version.into();
                writer.ok();
            }
            Client::Nothing => writer.ok(),
            Client::Info => {
                let mut text = Vec::new();
                put_client_line(&mut text, client_id(shard, id), conn.client.as_deref());
                writer.bulk(&text);
            }
            Client::List => unreachable!("every shard is asked"),
        }
    }

    /// The lines of connections at some places, a viewer's own or all. False if no more than those
    /// that are there now fit into the text.
    pub(crate) fn put_clients(
        &self,
        viewer: Option<Principal>,
        places: Range<usize>,
        (text, bytes_max): (&mut Vec<u8>, usize),
    ) -> bool {
        for index in places {
            let conn = &self.conns[index];
            let principal = self.grantee(conn).map(|grantee| grantee.principal);
            if !conn.open || (viewer.is_some() && principal != viewer) {
                continue;
            }
            let before = text.len();
            let id = ConnId { index: index as u32, generation: conn.generation };
            put_client_line(text, client_id(self.id(), id), conn.client.as_deref());
            if text.len() > bytes_max {
                text.truncate(before);
                return false;
            }
        }
        true
    }

    /// The shards as a cluster client sees nodes: each with the slots it has and its own port. A
    /// server without own ports is one node.
    fn nodes(&self) -> Vec<Node> {
        let ports = &self.start.own_ports;
        if ports.iter().all(|port| *port == 0) {
            let slots = (0, (ringway_core::slot::SLOTS - 1) as u16);
            return alloc::vec![Node { shard: 0, slots, port: self.start.base_port }];
        }
        (0..self.shards())
            .map(|shard| Node {
                shard,
                slots: self.start.map.run(ShardId(shard as u8)),
                port: ports[shard],
            })
            .collect()
    }

    fn cluster(&mut self, id: ConnId, cluster: Cluster, env: &mut impl Env) {
        let version = self.resp_version(id);
        let nodes = self.nodes();
        let epoch = self.start.epoch.0;
        let host = &self.start.host;
        let writer = &mut Writer::new(env.out(id), version);
        match cluster {
            Cluster::KeySlot(slot) => writer.integer(i64::from(slot.number())),
            Cluster::MyId => {
                let me = if nodes.len() == 1 { 0 } else { self.start.id.index() };
                writer.bulk(node_id(epoch, me).as_bytes());
            }
            Cluster::Slots => {
                writer.array(nodes.len());
                for node in &nodes {
                    writer.array(3);
                    writer.integer(i64::from(node.slots.0));
                    writer.integer(i64::from(node.slots.1));
                    writer.array(4);
                    if host.is_empty() {
                        writer.null();
                    } else {
                        writer.bulk(host);
                    }
                    writer.integer(i64::from(node.port));
                    writer.bulk(node_id(epoch, node.shard).as_bytes());
                    writer.array(0);
                }
            }
            Cluster::Shards => {
                writer.array(nodes.len());
                for node in &nodes {
                    put_cluster_shard(writer, node, host, epoch);
                }
            }
            Cluster::Info => {
                let text = format!(
                    "cluster_enabled:1\r\ncluster_state:ok\r\ncluster_slots_assigned:16384\r\n\
                     cluster_slots_ok:16384\r\ncluster_slots_pfail:0\r\ncluster_slots_fail:0\r\n\
                     cluster_known_nodes:{nodes}\r\ncluster_size:{nodes}\r\n\
                     cluster_current_epoch:{epoch}\r\ncluster_my_epoch:{epoch}\r\n",
                    nodes = nodes.len(),
                );
                writer.verbatim(&text);
            }
            Cluster::Nodes => {
                let mut text = String::new();
                let host = String::from_utf8_lossy(host);
                for node in &nodes {
                    let me = node.shard == self.start.id.index() || nodes.len() == 1;
                    let flags = if me { "myself,master" } else { "master" };
                    let id = node_id(epoch, node.shard);
                    let (first, last) = node.slots;
                    text += &format!(
                        "{id} {host}:{port}@{port} {flags} - 0 0 {epoch} connected \
                         {first}-{last}\n",
                        port = node.port,
                    );
                }
                writer.verbatim(&text);
            }
            Cluster::CountKeysInSlot(_) => unreachable!("the shard of the slot counts"),
        }
    }

    fn shard_map_resp(&self, writer: &mut Writer<'_>) {
        writer.array(self.shards());
        for shard in 0..self.shards() {
            let (first, last) = self.start.map.run(ShardId(shard as u8));
            writer.array(4);
            writer.integer(shard as i64);
            writer.integer(i64::from(first));
            writer.integer(i64::from(last));
            writer.integer(i64::from(self.start.own_ports.get(shard).copied().unwrap_or(0)));
        }
    }

    /// What `INFO` says: of the shard that the connection is on, with the fields that clients,
    /// their ready checks and `redis-cli --stat` look at. What all names come to is only for those
    /// who may see them all.
    fn info(&self, sections: ArgList<'_>, sees_all: bool) -> String {
        let wanted = |name: &str| {
            sections.is_empty()
                || sections.iter().any(|section| {
                    [name, "all", "everything", "default"]
                        .iter()
                        .any(|known| section.eq_ignore_ascii_case(known.as_bytes()))
                })
        };
        let mut text = String::new();
        if wanted("server") {
            text += &self.info_server();
        }
        if wanted("clients") {
            text += &format!(
                "# Clients\r\nconnected_clients:{}\r\nblocked_clients:{}\r\n\r\n",
                self.connections(),
                self.pendings.blocking(),
            );
        }
        if wanted("memory") && sees_all {
            let table = self.names.table().bytes().total();
            let sessions = self.sessions.bytes() + self.names.mirror_bytes();
            text += &format!(
                "# Memory\r\nused_memory:{}\r\nmaxmemory_policy:noeviction\r\n\
                 table_bytes:{table}\r\nsession_bytes:{sessions}\r\n\r\n",
                table + sessions,
            );
        }
        if wanted("persistence") {
            // Ready checks wait while this says that it loads. Questions are answered at once,
            // and a grant that has to wait says so itself (`STARTING`).
            text += "# Persistence\r\nloading:0\r\nrdb_bgsave_in_progress:0\r\n\
                     aof_enabled:0\r\naof_rewrite_in_progress:0\r\n\r\n";
        }
        if wanted("stats") {
            let stats = &self.stats;
            text += &format!(
                "# Stats\r\ntotal_connections_received:{}\r\ntotal_commands_processed:{}\r\n\
                 forwarded_out:{}\r\nforwarded_in:{}\r\nprotocol_errors:{}\r\n\r\n",
                stats.accepted,
                stats.verbs.iter().sum::<u64>(),
                stats.forwarded_out,
                stats.forwarded_in,
                stats.protocol_errors,
            );
        }
        if wanted("replication") {
            text += "# Replication\r\nrole:master\r\nconnected_slaves:0\r\n\r\n";
        }
        if wanted("cluster") {
            // The shards of a process forward, so no client has to speak to them as a cluster.
            text += "# Cluster\r\ncluster_enabled:0\r\n\r\n";
        }
        if wanted("keyspace") && sees_all {
            let names = self.names.table().len();
            let sessions = self.sessions.len();
            text += &format!(
                "# Keyspace\r\ndb0:keys={names},expires=0,avg_ttl=0\r\nsessions:{sessions}\r\n"
            );
        }
        text
    }

    fn info_server(&self) -> String {
        let waits = self.names.grants_from().since(self.now()).as_ms_ceil();
        format!(
            "# Server\r\nredis_version:{REDIS_VERSION}\r\nringway_version:{}\r\n\
             redis_mode:standalone\r\narch_bits:64\r\nepoch:{}\r\nshards:{}\r\nshard:{}\r\n\
             tcp_port:{}\r\nstarting_ms:{waits}\r\n\r\n",
            env!("CARGO_PKG_VERSION"),
            self.start.epoch.0,
            self.shards(),
            self.id(),
            self.start.base_port,
        )
    }

    /// What benchmarks and libraries ask for; everything else has no value.
    fn config_get(&self, patterns: ArgList<'_>, writer: &mut Writer<'_>) {
        const VALUES: [(&str, &str); 4] = [
            ("save", ""),
            ("appendonly", "no"),
            ("databases", "1"),
            ("maxmemory-policy", "noeviction"),
        ];
        let wanted =
            |name: &str| patterns.iter().any(|pattern| command::matches(pattern, name.as_bytes()));
        let found = || VALUES.iter().filter(|(name, _)| wanted(name));
        writer.map(found().count());
        for (name, value) in found() {
            writer.bulk(name.as_bytes());
            writer.bulk(value.as_bytes());
        }
    }

    /// `TIME`: seconds and microseconds of Unix time, as of this turn.
    fn time(&self, writer: &mut Writer<'_>) {
        let us = (self.now() + self.start.unix_at_zero).0 / 1_000;
        writer.array(2);
        writer.bulk_text(us / 1_000_000);
        writer.bulk_text(us % 1_000_000);
    }
}

/// The Redis whose answers ours are like: clients decide by it what they may ask.
const REDIS_VERSION: &str = "7.2.0";

/// A shard as a cluster client sees it.
struct Node {
    shard: usize,
    slots: (u16, u16),
    port: u16,
}

fn put_cluster_shard(writer: &mut Writer<'_>, node: &Node, host: &[u8], epoch: u32) {
    writer.map(2);
    writer.bulk(b"slots");
    writer.array(2);
    writer.integer(i64::from(node.slots.0));
    writer.integer(i64::from(node.slots.1));
    writer.bulk(b"nodes");
    writer.array(1);
    writer.map(7);
    writer.bulk(b"id");
    writer.bulk(node_id(epoch, node.shard).as_bytes());
    writer.bulk(b"port");
    writer.integer(i64::from(node.port));
    for (name, value) in [
        (b"ip".as_slice(), host),
        (b"endpoint", host),
        (b"role", b"master"),
        (b"health", b"online"),
    ] {
        writer.bulk(name);
        writer.bulk(value);
    }
    writer.bulk(b"replication-offset");
    writer.integer(0);
}

/// A node's id as cluster clients expect one: 40 hexadecimal digits, another in each epoch.
fn node_id(epoch: u32, shard: usize) -> String {
    let mut rng = Rng::new(u64::from(epoch) << 8 | shard as u64);
    let (a, b, c) = (rng.next_u64(), rng.next_u64(), rng.next_u64() as u32);
    format!("{a:016x}{b:016x}{c:08x}")
}

/// A connection's number, unique in the process as long as it lives.
fn client_id(shard: ShardId, id: ConnId) -> u64 {
    u64::from(shard.0) << 56 | u64::from(id.generation & 0xFF_FFFF) << 32 | u64::from(id.index)
}

fn put_client_line(text: &mut Vec<u8>, id: u64, info: Option<&ClientInfo>) {
    let empty = ClientInfo::default();
    let info = info.unwrap_or(&empty);
    text.extend_from_slice(format!("id={id} name=").as_bytes());
    text.extend_from_slice(&info.name);
    text.extend_from_slice(b" lib-name=");
    text.extend_from_slice(&info.lib_name);
    text.extend_from_slice(b" lib-ver=");
    text.extend_from_slice(&info.lib_version);
    text.push(b'\n');
}

/// A digest in hexadecimal digits.
struct Hex<'a>(&'a [u8]);

impl core::fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
