//! Plots as SVG.

use super::rows::{PortsFigure, kernel_mib, mib};
use crate::results::{Case, DIRECT, Of, PortsRow, SNPROXY, Spread};
use anyhow::Context;
use plotters::{
    chart::{ChartBuilder, ChartContext},
    coord::types::RangedCoordf64,
    element::{Circle, EmptyElement, PathElement, Rectangle, Text, TriangleMarker},
    prelude::{Cartesian2d, SVGBackend},
    style::{
        Color, RGBColor,
        text_anchor::{HPos, Pos, VPos},
    },
};
use snproxy_pages::{
    plot::{
        Area, BLUE, FAINT, GREEN, GREY, INK, MARGIN, ORANGE, PURPLE, RED, SKY, WIDTH, blank,
        draw_legend, drawn, font, label, short,
    },
    table::number,
};

/// Height of a bar, and what is left between two cases.
const BAR: u32 = 17;
const GAP: u32 = 16;
/// Above the bars: title and legend.
const HEAD: u32 = 76;
/// Below: the axis.
const FOOT: u32 = 56;
/// Left of the bars: names of the cases.
const NAMES: u32 = 300;
const PANEL: u32 = 300;

const COLOURS: [(&str, RGBColor); 5] = [
    (SNPROXY, BLUE),
    ("haproxy", ORANGE),
    ("haproxy-splice", PURPLE),
    ("haproxy-64k", RED),
    ("nginx", GREEN),
];
/// Of further builds of snproxy.
const OTHER: RGBColor = SKY;

type Chart<'c, 's> = ChartContext<'c, SVGBackend<'s>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

/// Bars of each case and contestant: its share of direct, with whiskers from the least to the greatest.
pub(super) fn ratios(title: &str, cases: &[&Case]) -> anyhow::Result<String> {
    let first = cases.first().context("a case to plot")?;
    let proxied = first.contestants.iter().filter(|one| one.name != DIRECT);
    let mut names: Vec<&str> = proxied.map(|one| &*one.name).collect();
    // In the same order as the legend, ours first.
    names.sort_by_key(|name| {
        COLOURS
            .iter()
            .position(|(known, _)| known == name)
            .unwrap_or(9)
    });
    let share = |case: &Case, name: &str| {
        let direct = case.contestant(DIRECT)?;
        case.contestant(name)?.ratio(direct, Of::Value)
    };

    let bars = u32::try_from(names.len())?;
    let block = bars * BAR + GAP;
    let height = u32::try_from(cases.len())? * block;
    let greatest = cases
        .iter()
        .flat_map(|case| names.iter().filter_map(|name| share(case, name)))
        .fold(1.0, |most: f64, share| most.max(share.max));
    // Room for the figure behind the longest bar.
    let right = greatest * 1.08;

    let mut svg = String::new();
    {
        let area = blank(&mut svg, HEAD + height + FOOT)?;
        area.draw(&label(
            &format!("{title}: throughput as a share of direct (median, least to greatest)"),
            (MARGIN, 14),
            17,
            HPos::Left,
        ))
        .map_err(drawn)?;
        let legend = names.iter().map(|name| (*name, colour(name)));
        draw_legend(&area, legend, 46)?;

        let mut builder = ChartBuilder::on(&area);
        builder
            .margin_top(HEAD)
            .margin_left(NAMES)
            .margin_right(MARGIN)
            .margin_bottom(MARGIN)
            .x_label_area_size(FOOT - MARGIN);
        let mut chart = builder
            .build_cartesian_2d(0.0..right, 0.0..f64::from(height))
            .map_err(drawn)?;
        chart
            .configure_mesh()
            .disable_y_mesh()
            .disable_y_axis()
            .light_line_style(FAINT.mix(0.0))
            .bold_line_style(FAINT)
            .axis_style(INK)
            .x_labels(11)
            .x_label_formatter(&|x| format!("{x:.1}"))
            .x_label_style(font(13))
            .draw()
            .map_err(drawn)?;
        rule(&mut chart, 1.0, f64::from(height))?;
        for (index, case) in (0u32..).zip(cases) {
            let top = height - index * block;
            let middle = f64::from(top) - f64::from(block) / 2.0;
            let (_, y) = chart.backend_coord(&(0.0, middle));
            area.draw(&label(
                &case.title,
                (NAMES - 10, u32::try_from(y)?),
                14,
                HPos::Right,
            ))
            .map_err(drawn)?;
            for (place, name) in (0u32..).zip(&names) {
                let Some(share) = share(case, name) else {
                    continue;
                };
                let top = f64::from(top - GAP / 2 - place * BAR);
                bar(&mut chart, share, top, colour(name), *name == SNPROXY)?;
            }
        }
        area.present().map_err(drawn)?;
    }
    Ok(svg)
}

/// A line at 1: as good as direct.
fn rule(chart: &mut Chart<'_, '_>, x: f64, height: f64) -> anyhow::Result<()> {
    let line = PathElement::new([(x, 0.0), (x, height)], INK.stroke_width(1));
    chart.draw_series([line]).map_err(drawn)?;
    Ok(())
}

fn bar(
    chart: &mut Chart<'_, '_>,
    share: Spread,
    top: f64,
    colour: RGBColor,
    is_bold: bool,
) -> anyhow::Result<()> {
    let Spread { median, min, max } = share;
    let (bottom, middle) = (top - f64::from(BAR) + 2.0, top - f64::from(BAR) / 2.0 + 1.0);
    let filled = Rectangle::new([(0.0, bottom), (median, top)], colour.filled());
    chart.draw_series([filled]).map_err(drawn)?;
    let whisker = [
        [(min, middle), (max, middle)],
        [(min, middle - 4.0), (min, middle + 4.0)],
        [(max, middle - 4.0), (max, middle + 4.0)],
    ];
    let whisker = whisker.map(|ends| PathElement::new(ends, INK.stroke_width(1)));
    chart.draw_series(whisker).map_err(drawn)?;
    let style = font(12).color(if is_bold { &INK } else { &GREY });
    let text = EmptyElement::at((max.max(median), middle))
        + Text::new(
            format!("{median:.2}"),
            (6, 0),
            style.pos(Pos::new(HPos::Left, VPos::Center)),
        );
    chart.draw_series([text]).map_err(drawn)?;
    Ok(())
}

/// Ready time, time of a change, and memory, over the number of ports.
pub(super) fn ports(rows: &[PortsRow]) -> anyhow::Result<String> {
    let mut counts: Vec<u32> = rows.iter().map(|row| row.ports).collect();
    counts.sort_unstable();
    counts.dedup();
    let names = ["snproxy", "haproxy", "nginx"];
    let panels: [(&str, PortsFigure); 3] = [
        ("time from exec until ready, ms", |round| round.ready_ms),
        ("time until a changed mapping works, ms", |round| {
            round.change_ms
        }),
        ("memory of the process and of the kernel, MiB", |round| {
            mib(round.rss_kib) + kernel_mib(round)
        }),
    ];
    let mut svg = String::new();
    {
        let head = 84;
        let area = blank(&mut svg, head + 3 * PANEL)?;
        let title = "Many cluster ports (medians, least to greatest)";
        area.draw(&label(title, (MARGIN, 14), 17, HPos::Left))
            .map_err(drawn)?;
        draw_legend(&area, names.iter().map(|name| (*name, colour(name))), 42)?;
        area.draw(&label(&refusals(rows), (MARGIN, 68), 13, HPos::Left))
            .map_err(drawn)?;
        let (_, below) = area.split_vertically(head);
        for (panel, (what, figure)) in below.split_evenly((3, 1)).iter().zip(panels) {
            draw_panel(panel, what, rows, &counts, &names, figure)?;
        }
        area.present().map_err(drawn)?;
    }
    Ok(svg)
}

fn draw_panel(
    area: &Area<'_>,
    what: &str,
    rows: &[PortsRow],
    counts: &[u32],
    names: &[&str],
    figure: PortsFigure,
) -> anyhow::Result<()> {
    let spread = |row: &PortsRow| Spread::of(row.rounds.iter().map(figure));
    let greatest = rows.iter().filter_map(spread);
    let greatest = greatest.fold(1.0, |most: f64, one| most.max(one.max));
    let last = f64::from(*counts.last().context("a number of ports")?).log10();
    area.draw(&label(what, (MARGIN, 14), 14, HPos::Left))
        .map_err(drawn)?;
    let mut builder = ChartBuilder::on(area);
    builder
        .margin_top(30)
        .margin_right(40)
        .margin_left(MARGIN)
        .y_label_area_size(60)
        .x_label_area_size(44);
    let mut chart = builder
        .build_cartesian_2d(-0.15..last + 0.05, 0.0..greatest * 1.08)
        .map_err(drawn)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .x_labels(0)
        .light_line_style(FAINT.mix(0.0))
        .bold_line_style(FAINT)
        .axis_style(INK)
        .y_labels(6)
        .y_label_formatter(&|y| short(*y))
        .y_label_style(font(13))
        .draw()
        .map_err(drawn)?;
    for count in counts {
        let (x, y) = chart.backend_coord(&(f64::from(*count).log10(), 0.0));
        let (left, top) = area.get_base_pixel();
        let at = (u32::try_from(x - left)?, u32::try_from(y - top)? + 14);
        area.draw(&label(&short((*count).into()), at, 13, HPos::Center))
            .map_err(drawn)?;
    }
    let plotted = chart.plotting_area().get_pixel_range();
    let below = u32::try_from(plotted.1.end - area.get_base_pixel().1)?;
    area.draw(&label(
        "cluster ports",
        (WIDTH / 2, below + 32),
        13,
        HPos::Center,
    ))
    .map_err(drawn)?;
    // Ours last, above the others.
    for name in names.iter().rev() {
        let points = rows.iter().filter(|row| row.contestant == *name);
        let points: Vec<_> = points
            .filter_map(|row| Some((f64::from(row.ports).log10(), spread(row)?)))
            .collect();
        let colour = colour(name);
        let line = points.iter().map(|(x, one)| (*x, one.median));
        let line = PathElement::new(line.collect::<Vec<_>>(), colour.stroke_width(2));
        chart.draw_series([line]).map_err(drawn)?;
        let whiskers = points.iter().map(|(x, one)| {
            PathElement::new([(*x, one.min), (*x, one.max)], colour.stroke_width(1))
        });
        chart.draw_series(whiskers).map_err(drawn)?;
        let medians = points.iter().map(|(x, one)| (*x, one.median));
        // A shape each, for who sees no colours.
        match *name {
            SNPROXY => chart.draw_series(medians.map(|at| Circle::new(at, 5, colour.filled()))),
            "haproxy" => {
                chart.draw_series(medians.map(|at| TriangleMarker::new(at, 7, colour.filled())))
            }
            _ => chart.draw_series(medians.map(|at| {
                EmptyElement::at(at) + Rectangle::new([(-5, -5), (5, 5)], colour.filled())
            })),
        }
        .map_err(drawn)?;
    }
    Ok(())
}

/// Who did not take how many.
fn refusals(rows: &[PortsRow]) -> String {
    let refused = rows.iter().filter(|row| row.refused.is_some());
    let refused: Vec<_> = refused
        .map(|row| {
            format!(
                "{} refuses {} ports",
                row.contestant,
                number(row.ports.into())
            )
        })
        .collect();
    refused.join(", ")
}

fn colour(name: &str) -> RGBColor {
    let known = COLOURS.iter().find(|(known, _)| *known == name);
    known.map_or(OTHER, |(_, colour)| *colour)
}
