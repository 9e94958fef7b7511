//! What the plots in docs/ are drawn with.
//!
//! Colours are those of Okabe and Ito, which colour-blind readers tell apart.

use crate::table::number;
use anyhow::anyhow;
use plotters::{
    coord::Shift,
    element::{Rectangle, Text},
    prelude::{DrawingArea, IntoDrawingArea, SVGBackend},
    style::{
        Color, IntoFont, RGBColor, TextStyle,
        text_anchor::{HPos, Pos, VPos},
    },
};

pub const WIDTH: u32 = 960;
pub const MARGIN: u32 = 16;

pub const INK: RGBColor = RGBColor(34, 34, 34);
pub const FAINT: RGBColor = RGBColor(221, 221, 221);
pub const GREY: RGBColor = RGBColor(120, 120, 120);
pub const BLUE: RGBColor = RGBColor(0, 114, 178);
pub const ORANGE: RGBColor = RGBColor(230, 159, 0);
pub const PURPLE: RGBColor = RGBColor(204, 121, 167);
pub const RED: RGBColor = RGBColor(213, 94, 0);
pub const GREEN: RGBColor = RGBColor(0, 158, 115);
pub const SKY: RGBColor = RGBColor(86, 180, 233);

pub type Area<'s> = DrawingArea<SVGBackend<'s>, Shift>;

/// An empty page of this height.
pub fn blank(svg: &mut String, height: u32) -> anyhow::Result<Area<'_>> {
    let area = SVGBackend::with_string(svg, (WIDTH, height)).into_drawing_area();
    // Readers with a dark page still see dark text on white.
    area.fill(&RGBColor(255, 255, 255)).map_err(drawn)?;
    Ok(area)
}

/// What the colours mean, in one line.
pub fn draw_legend<'n>(
    area: &Area<'_>,
    names: impl Iterator<Item = (&'n str, RGBColor)>,
    y: u32,
) -> anyhow::Result<()> {
    let mut x = MARGIN;
    for (name, colour) in names {
        let (left, top) = (i32::try_from(x)?, i32::try_from(y)? - 6);
        let square = Rectangle::new([(left, top), (left + 12, top + 12)], colour.filled());
        area.draw(&square).map_err(drawn)?;
        area.draw(&label(name, (x + 18, y), 14, HPos::Left))
            .map_err(drawn)?;
        x += 56 + 8 * u32::try_from(name.len())?;
    }
    Ok(())
}

/// A line of text, in the middle of whose height `at` is.
pub fn label(
    text: &str,
    (x, y): (u32, u32),
    size: u32,
    towards: HPos,
) -> Text<'static, (i32, i32), String> {
    let at = (
        i32::try_from(x).unwrap_or_default(),
        i32::try_from(y).unwrap_or_default(),
    );
    Text::new(
        text.to_owned(),
        at,
        font(size).pos(Pos::new(towards, VPos::Center)),
    )
}

pub fn font(size: u32) -> TextStyle<'static> {
    ("sans-serif", size).into_font().color(&INK)
}

/// Its errors borrow the drawing.
pub fn drawn(error: impl std::fmt::Display) -> anyhow::Error {
    anyhow!("plot: {error}")
}

/// Without a fraction of nothing.
pub fn short(value: f64) -> String {
    let text = number(value);
    let whole = text.strip_suffix(".00").or(text.strip_suffix(".0"));
    whole.unwrap_or(&text).to_owned()
}
