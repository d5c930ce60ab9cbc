//! A Redis client on one connection of a process, for stories told in the commands it sends and
//! the replies it gets.

use ringway_coord_proto::Access;

use crate::process::{Link, Process};
use crate::resp_stream::command;

/// A Redis client.
#[derive(Debug)]
pub struct Redis {
    /// Its connection.
    pub link: Link,
}

impl Redis {
    /// Connects to a shard.
    pub fn connect<A: Access>(process: &mut Process<A>, shard: usize) -> Redis {
        Redis { link: process.connect(shard) }
    }

    /// Sends commands, a line each, and gives back all that was answered, line ends as `|`.
    pub fn says<A: Access>(&mut self, process: &mut Process<A>, lines: &str) -> String {
        self.sends(process, lines);
        process.settle();
        self.hears(process)
    }

    /// All that has come since, line ends as `|`.
    pub fn hears<A: Access>(&mut self, process: &mut Process<A>) -> String {
        String::from_utf8_lossy(&process.take(self.link)).replace("\r\n", "|")
    }

    /// Sends commands, a line each.
    pub fn sends<A: Access>(&mut self, process: &mut Process<A>, lines: &str) {
        for line in lines.lines() {
            let words: Vec<&[u8]> = line.split_whitespace().map(str::as_bytes).collect();
            process.send(self.link, &command(&words));
        }
    }
}
