#!/usr/bin/env bash
# What compression saves by kind of file, beside `lz4 -1` on the same streams.
#
#   perf/office-mix.sh [FOLDER]
#
# The files are those that Debian packages install. They are fetched with `apt-get download` and
# unpacked below FOLDER (a temporary one unless given; one that is there already is used as it is),
# nothing is installed. Needs apt, dpkg, lz4 and python3; about 60 MB are fetched. Which files:
#
#   text      sources of Python's documentation (python3.11-doc, *.txt)
#   html      the same documentation (python3.11-doc, *.html)
#   json      names of countries, languages, currencies (iso-codes, *.json)
#   logs      samples of many services' logs (fail2ban, its tests)
#   mail      messages (libpython3.11-testsuite, spamassassin), and made ones: a text of 2 KB with one
#             of the office documents or PDFs attached, as Python's email library puts it
#   office    documents and templates (libreoffice-common, *.od? *.ot?): zip with XML and pictures
#   pdf       manuals (r-doc-pdf)
#   archives  the packages themselves, a Python wheel (python3-pip-whl), changelogs as they are (*.gz)
set -euo pipefail

for program in apt-get dpkg lz4 python3 cargo; do
    command -v $program >/dev/null || { echo "$program is missing" >&2; exit 1; }
done

if [ $# -gt 0 ]; then
    folder=$1
else
    folder=$(mktemp -d)
    trap 'rm -rf "$folder"' EXIT
fi
mix=$folder/mix

fetch() {
    mkdir -p "$folder/debs" "$folder/files"
    (cd "$folder/debs" && apt-get download -qq python3.11-doc iso-codes fail2ban \
        libpython3.11-testsuite spamassassin libreoffice-common r-doc-pdf python3-pip-whl)
    for deb in "$folder"/debs/*.deb; do
        dpkg -x "$deb" "$folder/files"
    done
}

pick() { # kind, below which folder, which files
    mkdir -p "$mix/$1"
    local kind=$1 below=$2
    shift 2
    # The number keeps files of one name apart, and the order.
    (cd "$folder/files/$below" && find . -type f \( "$@" \) -print0 | LC_ALL=C sort -z) |
        { n=0; while IFS= read -r -d '' file; do
            n=$((n + 1))
            cp "$folder/files/$below/$file" "$mix/$kind/$(printf %05d $n)-$(basename "$file")"
        done; }
}

sort_out() {
    pick text usr/share/doc/python3.11 -name '*.txt'
    pick html usr/share/doc/python3.11 -name '*.html'
    pick json usr/share/iso-codes -name '*.json'
    pick logs usr/lib/python3/dist-packages/fail2ban/tests/files/logs -name '*'
    pick office usr/lib/libreoffice/share -name '*.o[dt]?'
    pick pdf usr/share/R/doc/manual -name '*.pdf'
    pick archives usr/share -name '*.gz' -o -name '*.whl'
    cp "$folder"/debs/*.deb "$mix/archives"
    pick mail usr/lib/python3.11/test/test_email/data -name 'msg_*.txt'
    cp "$folder"/files/usr/share/doc/spamassassin/examples/sample-*.txt "$mix/mail"
    python3 - "$mix" <<'PYTHON'
import email.message, email.policy, pathlib, sys

mix = pathlib.Path(sys.argv[1])
texts = sorted((mix / "text").iterdir())
files = sorted((mix / "office").iterdir())[::4] + sorted((mix / "pdf").iterdir())[::3]
for number, file in enumerate(files):
    message = email.message.EmailMessage(policy=email.policy.SMTP)
    message["From"] = f"Sender {number} <sender{number}@example.com>"
    message["To"] = "list@example.org"
    message["Date"] = f"Sat, 21 Nov 2026 {number // 60:02}:{number % 60:02}:00 +0000"
    message["Subject"] = f"The document {file.name}"
    message.set_content(texts[number].read_text()[:2000])
    message.add_attachment(
        file.read_bytes(), maintype="application", subtype="octet-stream", filename=file.name)
    (mix / "mail" / f"made-{number:03}.eml").write_bytes(bytes(message))
PYTHON
}

[ -d "$mix" ] || { fetch; sort_out; }

echo "# $(lz4 --version)"
cargo run --quiet --release -p ringway-tunnel-coding --example office_mix -- "$mix"
