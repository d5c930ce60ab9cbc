//! A web server that everybody uses, behind the tunnel: nginx, and curl in front of it.

use std::net::SocketAddr;
use std::path::Path;

use super::sites::{Pair, Words};
use super::tools::{curl, program, run, server, tool};
use crate::support::Held;

/// nginx in one process with one configuration; all that it writes is in the directory. `file` is
/// what it serves, `/which` says which connection this is and which of its requests, `/who` what a
/// PROXY header has told, and `/upload` where it has put what was posted.
pub(crate) fn nginx(dir: &Path, file: &[u8], listen: &str) -> (Held, SocketAddr) {
    let here = dir.to_str().expect("text");
    let (conf, nginx) = (format!("{here}/nginx.conf"), tool("nginx"));
    std::fs::write(dir.join("file"), file).expect("our directory");
    let paths: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|what| format!("{what}_temp_path {here}/{what};\n"))
        .concat();
    server(|addr| {
        let text = format!(
            "daemon off;\nmaster_process off;\npid {here}/nginx.pid;\nerror_log stderr;\n\
             events {{ worker_connections 512; }}\nhttp {{\naccess_log off;\n{paths}\
             server {{\nlisten {addr} {listen};\nroot {here};\nclient_max_body_size 64m;\n\
             location = /which {{ return 200 \"$connection $connection_requests\\n\"; }}\n\
             location = /who {{ return 200 \"$proxy_protocol_addr:$proxy_protocol_port\"; }}\n\
             location = /upload {{\nclient_body_in_file_only on;\nproxy_pass_request_body off;\n\
             proxy_set_header Content-Length \"\";\nproxy_set_header X-File $request_body_file;\n\
             proxy_pass http://{addr}/took;\n}}\n\
             location = /took {{ return 200 \"$http_x_file\"; }}\n}}\n}}\n"
        );
        std::fs::write(&conf, text).expect("our directory");
        program(&[&nginx, "-p", here, "-c", &conf, "-e", "stderr"])
    })
}

#[track_caller]
fn sha256(path: &str) -> String {
    run(&["sha256sum", path]).split(' ').next().expect("a sum").to_owned()
}

/// Files go down and up whole, one that compresses and one that does not; and twenty requests are
/// twenty requests of one connection, since curl keeps it.
#[test]
fn curl_through_nginx() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = |name: &str| dir.path().join(name).to_str().expect("text").to_owned();
    for seed in [0, 1] {
        let mut file = vec![0; 5_000_000 + 8 * seed as usize];
        super::flows::Pattern::new(seed).fill(&mut file);
        let (_nginx, addr) = nginx(dir.path(), &file, "");
        let pair = Pair::start(&Words::default().forward(addr), &Words::default().allow([addr]));
        let door = pair.near.door(0);

        curl(&["-o", &path("got"), &format!("http://{door}/file")]);
        assert_eq!(sha256(&path("got")), sha256(&path("file")));

        let posted = format!("@{}", path("file"));
        let put = curl(&["--data-binary", &posted, &format!("http://{door}/upload")]);
        assert!(put.starts_with(&path("client_body")), "{put}");
        assert_eq!(sha256(&put), sha256(&path("file")));

        let which = format!("http://{door}/which");
        let told = curl(&[&which[..]; 20]);
        let mut lines = told.lines().map(|line| line.split_once(' ').expect("two numbers"));
        let (first, _) = lines.clone().next().expect("an answer");
        for number in 1..=20 {
            assert_eq!(lines.next(), Some((first, &*number.to_string())), "{told}");
        }
        pair.stop();
    }
}

/// nginx reads the PROXY header of a service that asks for one, and so knows curl's own address.
#[test]
fn nginx_learns_who_connects() {
    let dir = tempfile::tempdir().expect("a directory");
    let (_nginx, addr) = nginx(dir.path(), b"", "proxy_protocol");
    let near = Words::default().forward("service:web");
    let lines = format!("name = \"web\"\nto = \"{addr}\"\nproxy_protocol = true");
    let far = Words::default().allow(["service:web"]).section("service", &lines);
    let pair = Pair::start(&near, &far);
    let who = format!("http://{}/who", pair.near.door(0));
    let told = curl(&["-w", "\n%{local_ip}:%{local_port}", &who]);
    let (told, really) = told.split_once('\n').expect("two lines");
    assert_eq!(told, really);
    pair.stop();
}
