//! Lines that somebody pastes as an invitation.
//!
//! The oracles: what was accepted is written and read the same, also with blanks in it, and no cut
//! of it is accepted; a body under a right checksum is accepted or *altered*, whatever it says; and
//! a refusal is one short sentence, which does not repeat the line with its keys.

use ringway_crypto::{NetworkKey, Psk, Secret};
use ringway_tunnel_node::{Invite, LINE_BYTES_MAX, NoInvite, Target as Place};

use super::tunnel_edge::cuts;
use crate::Target;

/// A byte that says whether text or a body follows, and that.
pub const INVITE: Target = Target {
    name: "tunnel_invite",
    run: invite,
    seeds: invite_seeds,
    words: &[
        b"ringway-invite:",
        b"ringway-shared:",
        b"ringway-network:",
        b"\r\n",
        b"\xE2\x80\xA8",
        b"\x02gw",
        b"\x01\x04\xC0\x00\x02\x07\x00\x01",
        b"\x03\x01a\x00\x09",
        b"AgAA",
        b"=",
    ],
    bytes_max: 2048,
};

const TEXT: u8 = 0;
const BODY: u8 = 1;

/// Reads a line.
pub fn invite(data: &[u8]) {
    match data {
        [which, bytes @ ..] if which % 2 == TEXT => {
            if let Ok(text) = std::str::from_utf8(bytes) {
                line(text);
            }
        }
        [_, body @ ..] => {
            let text = Invite::line_around(body);
            let refused = line(&text);
            assert!(matches!(refused, None | Some(NoInvite::Altered)), "{refused:?}");
        }
        [] => {}
    }
}

/// Why it is refused, if it is.
fn line(text: &str) -> Option<NoInvite> {
    let invite = match Invite::from_line(text) {
        Ok(invite) => invite,
        Err(why) => {
            let said = why.to_string();
            assert!(!said.is_empty() && said.len() < 300 && !said.contains('\n'), "{said}");
            return Some(why);
        }
    };
    let written = invite.to_line();
    assert!(written.len() <= LINE_BYTES_MAX);
    let is_it = |text: &str| Invite::from_line(text).is_ok_and(|read| read == invite);
    assert!(is_it(&written), "it is written as another");
    let (head, tail) = written.split_at(written.len() / 2);
    assert!(is_it(&format!(" {head}\r\n\t{tail} \n")), "blanks matter");
    for cut in cuts(written.len()) {
        assert!(Invite::from_line(&written[..cut]).is_err(), "it is accepted without its end");
    }
    None
}

fn invite_seeds() -> Vec<(&'static str, Vec<u8>)> {
    let invite = |addresses: &[&str]| Invite {
        until_s: 2_000_000_000,
        network: NetworkKey::new(Secret::new([1; 32])),
        shared: Psk::new(Secret::new([2; 32])),
        inviter: "gw".to_owned(),
        guest: "branch-7".to_owned(),
        addresses: addresses.iter().map(|text| Place::parse(text).expect(text)).collect(),
    };
    let text = |text: &str| [&[TEXT], text.as_bytes()].concat();
    let good = invite(&["gw.example:4600"]);
    let line = good.to_line();
    let several = invite(&["192.0.2.7:1", "[2001:db8::1]:65535", "a:9"]).to_line();
    let body = |network: &str, shared: &str, names: [&str; 2], addresses: &[Place]| {
        let mut body = vec![BODY];
        body.extend_from_slice(&2_000_000_000_u64.to_be_bytes());
        for text in [network, shared, names[0], names[1]] {
            body.push(text.len() as u8);
            body.extend_from_slice(text.as_bytes());
        }
        body.push(addresses.len() as u8);
        addresses.iter().for_each(|to| to.write(&mut body));
        body
    };
    let at = |text: &str| Place::parse(text).expect(text);
    let (network, shared) = (good.network.to_text(), good.shared.to_text());
    let names = ["gw", "branch-7"];
    let right = body(&network, &shared, names, &[at("gw.example:4600")]);
    assert!(Invite::line_around(&right[1..]) == line, "the body is built as the line's");
    vec![
        ("line", text(&line)),
        ("line-several", text(&several)),
        ("line-wrapped", text(&format!(" {}\r\n\t{}\n", &line[..70], &line[70..]))),
        ("line-cut", text(&line[..line.len() - 9])),
        ("line-long", text(&format!("{}xyz", *line))),
        ("line-changed", text(&line.replacen("b", "c", 1))),
        ("line-letter", text(&format!("{}=", &line[..90]))),
        ("line-version", text("ringway-invite:AQAA")),
        ("line-head", text("ringway-invite:Ag")),
        ("line-longest", text("ringway-invite:Av__")),
        ("key", text(&shared)),
        ("other", text("hello \u{2028} there")),
        ("body", right),
        ("body-several", body(&network, &shared, names, &[at("192.0.2.7:1"), at("[::1]:9")])),
        ("body-no-address", body(&network, &shared, names, &[])),
        ("body-17-addresses", body(&network, &shared, names, &vec![at("a:1"); 17])),
        ("body-service", body(&network, &shared, names, &[Place::Service("wiki".to_owned())])),
        ("body-keys-mixed", body(&shared, &network, names, &[at("a:1")])),
        ("body-no-name", body(&network, &shared, ["", "branch-7"], &[at("a:1")])),
        ("body-bad-name", body(&network, &shared, ["gw", "a\nb"], &[at("a:1")])),
        ("body-empty", vec![BODY]),
    ]
}
