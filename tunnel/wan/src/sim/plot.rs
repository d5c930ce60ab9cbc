//! A story as a picture: an SVG of four charts over one axis of time.
//!
//! It needs nothing to be shown: no script, no font, no other file. Bounds: a point a sample and
//! line; what lies between two points of the picture's width is for the reader to ask for less of.

use std::fmt::Write as _;

use super::{Change, Sample};

const WIDTH: f64 = 1000.0;
/// Where the charts begin and end, from left to right.
const LEFT: f64 = 80.0;
const RIGHT: f64 = 980.0;
/// What stands above the first chart, and between two.
const HEAD: f64 = 64.0;
const GAP: f64 = 46.0;
const FOOT: f64 = 46.0;

struct Curve {
    name: &'static str,
    color: &'static str,
    /// For what is a bound or a belief, not a measure.
    is_dashed: bool,
    values: Vec<f64>,
}

struct Chart {
    name: &'static str,
    height: f64,
    /// What one of the unit is in the curves' own.
    unit: (&'static str, f64),
    curves: Vec<Curve>,
}

/// Draws what happened, and the changes that made it happen, each in its words.
pub fn plot(title: &str, samples: &[Sample], changes: &[(Change, String)]) -> String {
    let charts = charts(samples);
    let seconds = samples.last().map_or(1.0, |last| last.at_s);
    let height = HEAD + charts.iter().map(|chart| chart.height + GAP).sum::<f64>() - GAP + FOOT;
    let mut out = String::new();
    let line = &mut out;
    put(
        line,
        format_args!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" \
             viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
         height=\"{height}\" font-family=\"sans-serif\" font-size=\"12\">"
        ),
    );
    put(line, format_args!("<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>"));
    let title = escaped(title);
    put(
        line,
        format_args!("<text x=\"{LEFT}\" y=\"24\" font-size=\"15\" fill=\"#222\">{title}</text>"),
    );
    let mut top = HEAD;
    for chart in &charts {
        chart.draw(line, top, seconds, samples);
        top += chart.height + GAP;
    }
    let bottom = top - GAP;
    draw_changes(line, changes, seconds, bottom);
    draw_time(line, seconds, bottom);
    out.push_str("</svg>\n");
    out
}

fn charts(samples: &[Sample]) -> Vec<Chart> {
    let all = |value: fn(&Sample) -> f64| samples.iter().map(value).collect::<Vec<f64>>();
    let curve = |name, color, value| Curve { name, color, is_dashed: false, values: all(value) };
    let dashed = |name, color, value| Curve { name, color, is_dashed: true, values: all(value) };
    let rates = vec![
        dashed("can arrive", "#888888", |one| one.bound_bits_per_s),
        curve("sent", "#e08214", |one| one.sent_bits_per_s),
        dashed("believed", "#7b3294", |one| one.believed_bits_per_s),
        curve("arriving", "#2166ac", |one| one.arrived_bits_per_s),
        curve("read in order", "#1a9850", |one| one.read_bits_per_s),
    ];
    let losses = vec![
        curve("lost behind the bottleneck", "#b2182b", |one| one.lost * 100.0),
        curve("overflowed before it", "#e08214", |one| one.overflowed * 100.0),
        dashed("believed to be the path's own", "#7b3294", |one| one.floor * 100.0),
    ];
    let queue = vec![curve("queue before the bottleneck", "#b2182b", |one| one.queue_s * 1e3)];
    let window = vec![
        dashed("window", "#7b3294", |one| one.window as f64),
        curve("on the way", "#2166ac", |one| one.flying as f64),
    ];
    let unit = |curves: &[Curve], units: &[(&'static str, f64)]| {
        let most = curves.iter().map(Curve::most).fold(0.0, f64::max);
        *units.iter().find(|(_, one)| most >= *one).unwrap_or(&units[units.len() - 1])
    };
    let rate_unit = unit(&rates, &[("Gbit/s", 1e9), ("Mbit/s", 1e6), ("kbit/s", 1e3)]);
    let bytes_unit = unit(&window, &[("GB", 1e9), ("MB", 1e6), ("kB", 1e3)]);
    vec![
        Chart { name: "Rate", height: 220.0, unit: rate_unit, curves: rates },
        Chart { name: "Loss", height: 120.0, unit: ("%", 1.0), curves: losses },
        Chart { name: "Queue", height: 120.0, unit: ("ms", 1.0), curves: queue },
        Chart { name: "Window", height: 120.0, unit: bytes_unit, curves: window },
    ]
}

impl Curve {
    fn most(&self) -> f64 {
        self.values.iter().copied().fold(0.0, f64::max)
    }
}

impl Chart {
    fn draw(&self, out: &mut String, top: f64, seconds: f64, samples: &[Sample]) {
        let (unit, one) = self.unit;
        let most = self.curves.iter().map(Curve::most).fold(0.0, f64::max) / one;
        let step = nice_step(most.max(1e-3), 5.0);
        let full = (most.max(1e-3) / step).ceil() * step;
        let y = |value: f64| top + self.height * (1.0 - value / one / full);
        for at in 0..=(full / step).round() as u32 {
            let value = f64::from(at) * step;
            let place = y(value * one);
            put(
                out,
                format_args!(
                    "<path d=\"M{LEFT} {place:.1}H{RIGHT}\" stroke=\"#e4e4e4\"/>\
                 <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\" fill=\"#444\">{}</text>",
                    LEFT - 8.0,
                    place + 4.0,
                    plain(value)
                ),
            );
        }
        let (name, above) = (self.name, top - 10.0);
        put(
            out,
            format_args!("<text x=\"12\" y=\"{above:.1}\" fill=\"#222\">{name}, {unit}</text>"),
        );
        self.draw_legend(out, above);
        for curve in &self.curves {
            let mut path = String::new();
            for (sample, value) in samples.iter().zip(&curve.values) {
                let letter = if path.is_empty() { 'M' } else { 'L' };
                let x = x(sample.at_s, seconds);
                let _ = write!(path, "{letter}{x:.1} {:.1}", y(*value));
            }
            let (color, dash) = (curve.color, dash(curve.is_dashed));
            put(
                out,
                format_args!(
                    "<path d=\"{path}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"1.4\" \
                 stroke-linejoin=\"round\"{dash}/>"
                ),
            );
        }
        let height = self.height;
        put(
            out,
            format_args!(
                "<path d=\"M{LEFT} {top}v{height}H{RIGHT}\" fill=\"none\" stroke=\"#444\"/>"
            ),
        );
    }

    fn draw_legend(&self, out: &mut String, y: f64) {
        let mut left = LEFT + 60.0;
        for curve in &self.curves {
            let (name, color, dash) = (curve.name, curve.color, dash(curve.is_dashed));
            put(
                out,
                format_args!(
                    "<path d=\"M{left} {:.1}h22\" stroke=\"{color}\" stroke-width=\"2\"{dash}/>\
                 <text x=\"{}\" y=\"{y:.1}\" fill=\"#222\">{name}</text>",
                    y - 4.0,
                    left + 28.0
                ),
            );
            left += 44.0 + 7.0 * name.len() as f64;
        }
    }
}

/// A line through all charts where the path has changed, with its words; those that would stand on
/// each other stand in turn in three rows.
fn draw_changes(out: &mut String, changes: &[(Change, String)], seconds: f64, bottom: f64) {
    for (at, (change, words)) in changes.iter().enumerate() {
        let place = x(change.at.0 as f64 / 1e9, seconds);
        if place > RIGHT {
            continue;
        }
        let (words, top) = (escaped(words), HEAD + 12.0 + 14.0 * (at % 3) as f64);
        put(
            out,
            format_args!(
                "<path d=\"M{place:.1} {HEAD}V{bottom}\" stroke=\"#999\" stroke-dasharray=\"2 3\"/>\
             <text x=\"{:.1}\" y=\"{top:.1}\" fill=\"#666\" font-size=\"11\">{words}</text>",
                place + 4.0
            ),
        );
    }
}

fn draw_time(out: &mut String, seconds: f64, bottom: f64) {
    let step = nice_step(seconds, 10.0);
    for at in 0..=(seconds / step + 1e-9).floor() as u32 {
        let value = f64::from(at) * step;
        let place = x(value, seconds);
        put(
            out,
            format_args!(
                "<path d=\"M{place:.1} {bottom}v5\" stroke=\"#444\"/>\
             <text x=\"{place:.1}\" y=\"{:.1}\" text-anchor=\"middle\" fill=\"#444\">{}</text>",
                bottom + 19.0,
                plain(value)
            ),
        );
    }
    let middle = f64::midpoint(LEFT, RIGHT);
    put(
        out,
        format_args!(
            "<text x=\"{middle}\" y=\"{}\" text-anchor=\"middle\" fill=\"#222\">seconds</text>",
            bottom + 38.0
        ),
    );
}

fn x(at: f64, seconds: f64) -> f64 {
    LEFT + (RIGHT - LEFT) * at / seconds
}

fn dash(is_dashed: bool) -> &'static str {
    if is_dashed { " stroke-dasharray=\"5 4\"" } else { "" }
}

/// One, two or five times a power of ten, so that about so many make the whole.
fn nice_step(whole: f64, parts: f64) -> f64 {
    let ten = 10_f64.powf((whole / parts).log10().floor());
    let times = whole / parts / ten;
    ten * if times <= 1.0 {
        1.0
    } else if times <= 2.0 {
        2.0
    } else if times <= 5.0 {
        5.0
    } else {
        10.0
    }
}

/// Without zeros that say nothing.
fn plain(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

fn put(out: &mut String, what: std::fmt::Arguments<'_>) {
    out.write_fmt(what).expect("a string takes it");
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use ringway_core::Moment;

    use super::*;
    use crate::line::Link;

    #[test]
    fn steps_are_nice() {
        for (whole, step) in [(1.0, 0.2), (12.5, 5.0), (200.0, 50.0), (9.9, 2.0), (0.03, 0.01)] {
            assert!((nice_step(whole, 5.0) / step - 1.0).abs() < 1e-9, "{whole}");
        }
        assert_eq!([plain(0.2), plain(12.0), plain(0.0)], ["0.2", "12", "0"]);
    }

    /// Every element is closed, every chart has its unit, and words cannot break the picture.
    #[test]
    fn a_picture_is_whole() {
        let sample =
            |at_s| Sample { at_s, sent_bits_per_s: 2e8, window: 5_000_000, ..Sample::default() };
        let samples: Vec<Sample> = (1..50).map(|at| sample(f64::from(at) * 0.1)).collect();
        let link = Link::parse("rate=1mbit").expect("a link");
        let change = (Change { at: Moment(2_000_000_000), link }, "a<b".to_owned());
        let svg = plot("x & y", &samples, &[change]);
        for word in ["Rate, Mbit/s", "Loss, %", "Queue, ms", "Window, MB", "a&lt;b", "x &amp; y"] {
            assert!(svg.contains(word), "{word} is missing");
        }
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
        let opened = svg.matches('<').count();
        assert_eq!(opened, svg.matches('>').count());
        assert_eq!(opened, svg.matches("/>").count() + 2 * svg.matches("</").count());
        plot("nothing", &[], &[]);
    }
}
