//! Curves as SVG: axes, lines with their points, and a legend; nothing else.

use std::fmt::Write;

use crate::figure::{Curve, digits};

/// Size of a plot, and of the room around its axes.
const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 400.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 190.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 50.0;
/// Told apart with any kind of colour vision (Okabe and Ito).
const COLOURS: [&str; 7] =
    ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000"];
/// Marks on an axis, about.
const TICKS: f64 = 6.0;

/// What a plot shows.
#[derive(Clone, Copy, Debug)]
pub struct Plot {
    /// Its name in [`Curve::plot`] and of its file.
    pub name: &'static str,
    /// Its headline.
    pub title: &'static str,
    /// What the axes show.
    pub x: &'static str,
    /// See `x`.
    pub y: &'static str,
    /// The axes show powers of ten.
    pub log: (bool, bool),
}

/// One axis: values to pixels.
struct Axis {
    from: f64,
    to: f64,
    log: bool,
    /// Pixels of `from` and `to`.
    span: (f64, f64),
}

impl Axis {
    fn over(values: impl Iterator<Item = f64>, log: bool, span: (f64, f64)) -> Self {
        let values: Vec<_> =
            values.filter(|value| value.is_finite() && (!log || *value > 0.0)).collect();
        let (least, most) =
            values.iter().fold((f64::MAX, f64::MIN), |(a, b), v| (a.min(*v), b.max(*v)));
        let (from, to) = match log {
            _ if values.is_empty() => (if log { 1.0 } else { 0.0 }, 10.0),
            true => (
                10_f64.powf(least.log10().floor()),
                10_f64.powf(most.log10().ceil()).max(least * 10.0),
            ),
            false => {
                let step = step(most.max(1e-9));
                (0.0, (most / step).ceil().max(1.0) * step)
            }
        };
        Self { from, to, log, span }
    }

    fn at(&self, value: f64) -> f64 {
        let share = match self.log {
            true => {
                (value.max(self.from).log10() - self.from.log10())
                    / (self.to.log10() - self.from.log10())
            }
            false => (value - self.from) / (self.to - self.from),
        };
        self.span.0 + share * (self.span.1 - self.span.0)
    }

    fn ticks(&self) -> Vec<f64> {
        if self.log {
            let powers = self.from.log10().round() as i32..=self.to.log10().round() as i32;
            return powers.map(|power| 10_f64.powi(power)).collect();
        }
        let step = step(self.to);
        (0..=(self.to / step).round() as u32).map(|index| f64::from(index) * step).collect()
    }
}

/// 1, 2 or 5 times a power of ten, so that there are about [`TICKS`] marks up to `most`.
fn step(most: f64) -> f64 {
    let rough = most / TICKS;
    let power = 10_f64.powf(rough.log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .map(|factor| factor * power)
        .into_iter()
        .find(|step| *step >= rough)
        .unwrap_or(power)
}

impl Plot {
    /// Draws the curves that belong here; none if there are none.
    pub fn svg(&self, curves: &[Curve]) -> Option<String> {
        let own: Vec<_> =
            curves.iter().filter(|c| c.plot == self.name && !c.points.is_empty()).collect();
        if own.is_empty() {
            return None;
        }
        let points = || own.iter().flat_map(|curve| curve.points.iter());
        let x = Axis::over(points().map(|point| point.0), self.log.0, (LEFT, WIDTH - RIGHT));
        let y = Axis::over(points().map(|point| point.1), self.log.1, (HEIGHT - BOTTOM, TOP));
        let mut svg = String::new();
        // Writing to a string cannot fail.
        let _ = self.frame(&mut svg, &x, &y);
        for (index, curve) in own.iter().enumerate() {
            let _ = draw(&mut svg, curve, index, (&x, &y));
        }
        svg.push_str("</svg>\n");
        Some(svg)
    }

    fn frame(&self, svg: &mut String, x: &Axis, y: &Axis) -> std::fmt::Result {
        writeln!(
            svg,
            r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12" fill="#222">
<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>
<text x="{LEFT}" y="22" font-size="15">{}</text>"##,
            escaped(self.title)
        )?;
        let (left, right, top, bottom) = (LEFT, WIDTH - RIGHT, TOP, HEIGHT - BOTTOM);
        for value in x.ticks() {
            let (at, label) = (x.at(value), digits(value));
            writeln!(svg, r##"<path d="M{at:.1} {top}V{bottom}" stroke="#ddd"/>"##)?;
            writeln!(
                svg,
                r#"<text x="{at:.1}" y="{}" text-anchor="middle">{label}</text>"#,
                bottom + 18.0
            )?;
        }
        for value in y.ticks() {
            let (at, label) = (y.at(value), digits(value));
            writeln!(svg, r##"<path d="M{left} {at:.1}H{right}" stroke="#ddd"/>"##)?;
            writeln!(
                svg,
                r#"<text x="{}" y="{:.1}" text-anchor="end">{label}</text>"#,
                left - 8.0,
                at + 4.0
            )?;
        }
        writeln!(svg, r##"<path d="M{left} {top}V{bottom}H{right}" fill="none" stroke="#222"/>"##)?;
        let (middle, low) = ((left + right) / 2.0, HEIGHT - 10.0);
        writeln!(
            svg,
            r#"<text x="{middle}" y="{low}" text-anchor="middle">{}</text>"#,
            escaped(self.x)
        )?;
        let middle = (top + bottom) / 2.0;
        writeln!(
            svg,
            r#"<text x="16" y="{middle}" text-anchor="middle" transform="rotate(-90 16 {middle})">{}</text>"#,
            escaped(self.y)
        )
    }
}

fn draw(svg: &mut String, curve: &Curve, index: usize, (x, y): (&Axis, &Axis)) -> std::fmt::Result {
    let colour = COLOURS[index % COLOURS.len()];
    let places: Vec<_> = curve.points.iter().map(|(a, b)| (x.at(*a), y.at(*b))).collect();
    let line: Vec<_> = places.iter().map(|(a, b)| format!("{a:.1},{b:.1}")).collect();
    writeln!(
        svg,
        r#"<polyline points="{}" fill="none" stroke="{colour}" stroke-width="2"/>"#,
        line.join(" ")
    )?;
    for (a, b) in places {
        writeln!(svg, r#"<circle cx="{a:.1}" cy="{b:.1}" r="3" fill="{colour}"/>"#)?;
    }
    let (at, high) = (WIDTH - RIGHT + 14.0, TOP + 8.0 + 20.0 * index as f64);
    writeln!(svg, r#"<path d="M{at} {high}h18" stroke="{colour}" stroke-width="2"/>"#)?;
    writeln!(svg, r#"<text x="{}" y="{}">{}</text>"#, at + 24.0, high + 4.0, escaped(&curve.name))
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLOT: Plot = Plot { name: "p", title: "a < b", x: "x", y: "y", log: (false, true) };

    fn curve(plot: &str, points: &[(f64, f64)]) -> Curve {
        Curve { plot: plot.to_owned(), name: "one".to_owned(), points: points.to_vec() }
    }

    #[test]
    fn only_its_own_curves_are_drawn() {
        assert_eq!(PLOT.svg(&[curve("q", &[(1.0, 1.0)]), curve("p", &[])]), None);
        let svg = PLOT.svg(&[curve("p", &[(0.0, 3.0), (50.0, 700.0)])]).expect("a plot");
        assert!(svg.contains("a &lt; b") && svg.matches("<circle").count() == 2, "{svg}");
        assert!(svg.contains(">1,000</text>") && svg.ends_with("</svg>\n"));
    }

    #[test]
    fn axes_reach_from_round_to_round() {
        let axis = Axis::over([3.0, 47.0].into_iter(), false, (0.0, 100.0));
        assert_eq!((axis.from, axis.to, axis.at(25.0)), (0.0, 50.0, 50.0));
        assert_eq!(axis.ticks(), [0.0, 10.0, 20.0, 30.0, 40.0, 50.0]);
        let log = Axis::over([3.0, 470.0].into_iter(), true, (0.0, 90.0));
        assert_eq!((log.from, log.to, log.at(10.0).round()), (1.0, 1000.0, 30.0));
        let nothing = Axis::over(std::iter::empty(), true, (0.0, 1.0));
        assert!(nothing.at(5.0).is_finite());
    }
}
