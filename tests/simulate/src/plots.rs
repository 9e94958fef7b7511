//! What a host pays, by the number of hosts.

use plotters::{
    chart::ChartBuilder,
    coord::combinators::IntoLogRange,
    element::{Circle, EmptyElement, PathElement, Text},
    style::{
        Color, RGBColor,
        text_anchor::{HPos, Pos, VPos},
    },
};
use snproxy_pages::plot::{
    Area, BLUE, FAINT, GREEN, INK, MARGIN, ORANGE, PURPLE, RED, SKY, WIDTH, blank, draw_legend,
    drawn, font, label, short,
};

use crate::study::{BUDGET, CHANGES, HOSTS, Study, USED};

const HEAD: u32 = 84;
const PANEL: u32 = 360;

/// One way under one load, at each number of hosts.
struct Line {
    /// Beside its points, for who sees no colours.
    mark: char,
    name: String,
    colour: RGBColor,
    points: Vec<(f64, f64)>,
}

pub(crate) fn hosts(study: &Study) -> anyhow::Result<String> {
    let panels = [
        (
            "processor of a host's snproxy, kernel included (grey: 5 % of one)",
            lines(study, |one| one.cost.cpu, |one| one.paper.host_cpu),
            (0.00005, 100.0),
            Some(BUDGET),
        ),
        (
            "bytes of a host per second, both directions",
            lines(study, |one| one.cost.bytes, |one| one.paper.bytes),
            (500.0, 1e9),
            None,
        ),
        (
            "processors that a member of etcd is busy with (grey: half of four)",
            members(study),
            (0.001, 10.0),
            Some(2.0),
        ),
    ];
    let mut svg = String::new();
    {
        let area = blank(&mut svg, HEAD + 3 * PANEL)?;
        let title = "What it costs to know who serves a port: probing alone, and the directory";
        area.draw(&label(title, (MARGIN, 14), 17, HPos::Left))
            .map_err(drawn)?;
        let (probing, directory) = panels[0].1.split_at(USED.len());
        for (some, y) in [(probing, 42), (directory, 66)] {
            let names = some.iter().map(|line| (&*line.name, line.colour));
            draw_legend(&area, names, y)?;
        }
        let (_, below) = area.split_vertically(HEAD);
        for (panel, (what, lines, range, rule)) in below.split_evenly((3, 1)).iter().zip(&panels) {
            draw(panel, what, lines, *range, *rule)?;
        }
        area.present().map_err(drawn)?;
    }
    Ok(svg)
}

fn lines(
    study: &Study,
    probing: impl Fn(&crate::study::Probed) -> f64,
    directory: impl Fn(&crate::study::Watched) -> f64,
) -> Vec<Line> {
    let looks = [('a', SKY), ('b', BLUE), ('c', PURPLE)];
    let probed = USED.iter().zip(looks).map(|(ports, (mark, colour))| {
        let at = |hosts: &u32| Some((f64::from(*hosts), probing(study.probed(*hosts, *ports)?)));
        Line {
            mark,
            name: format!("{mark}: probing, {ports} ports in use"),
            colour,
            points: HOSTS.iter().filter_map(at).collect(),
        }
    });
    let watched = watched(study, directory);
    probed.chain(watched).collect()
}

fn watched(study: &Study, figure: impl Fn(&crate::study::Watched) -> f64) -> Vec<Line> {
    let looks = [('d', GREEN), ('e', ORANGE), ('f', RED)];
    let lines = CHANGES.iter().zip(looks).map(|(changes, (mark, colour))| {
        let at = |hosts: &u32| Some((f64::from(*hosts), figure(study.watched(*hosts, *changes)?)));
        Line {
            mark,
            name: format!("{mark}: directory, {changes} changes/s"),
            colour,
            points: HOSTS.iter().filter_map(at).collect(),
        }
    });
    lines.collect()
}

fn members(study: &Study) -> Vec<Line> {
    watched(study, |one| one.paper.member_cpu)
}

fn draw(
    area: &Area<'_>,
    what: &str,
    lines: &[Line],
    (least, most): (f64, f64),
    rule: Option<f64>,
) -> anyhow::Result<()> {
    area.draw(&label(what, (MARGIN, 14), 14, HPos::Left))
        .map_err(drawn)?;
    let mut builder = ChartBuilder::on(area);
    builder
        .margin_top(30)
        .margin_right(40)
        .margin_left(MARGIN)
        .y_label_area_size(80)
        .x_label_area_size(44);
    let mut chart = builder
        .build_cartesian_2d((9.0..3300.0).log_scale(), (least..most).log_scale())
        .map_err(drawn)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .x_label_formatter(&|_| String::new())
        .light_line_style(FAINT.mix(0.0))
        .bold_line_style(FAINT)
        .axis_style(INK)
        .y_labels(8)
        .y_label_formatter(&|y| power(*y))
        .y_label_style(font(13))
        .draw()
        .map_err(drawn)?;
    for hosts in HOSTS {
        let (x, y) = chart.backend_coord(&(f64::from(hosts), least));
        let (left, top) = area.get_base_pixel();
        let at = (u32::try_from(x - left)?, u32::try_from(y - top)? + 14);
        area.draw(&label(&short(hosts.into()), at, 13, HPos::Center))
            .map_err(drawn)?;
    }
    let plotted = chart.plotting_area().get_pixel_range();
    let below = u32::try_from(plotted.1.end - area.get_base_pixel().1)?;
    area.draw(&label("hosts", (WIDTH / 2, below + 32), 13, HPos::Center))
        .map_err(drawn)?;
    if let Some(rule) = rule {
        let line = PathElement::new([(9.0, rule), (3300.0, rule)], FAINT.stroke_width(3));
        chart.draw_series([line]).map_err(drawn)?;
    }
    for line in lines {
        let path = PathElement::new(line.points.clone(), line.colour.stroke_width(2));
        chart.draw_series([path]).map_err(drawn)?;
        let dots = line.points.iter().map(|at| {
            let style = font(12).color(&line.colour);
            EmptyElement::at(*at)
                + Circle::new((0, 0), 4, line.colour.filled())
                + Text::new(
                    line.mark.to_string(),
                    (0, -11),
                    style.pos(Pos::new(HPos::Center, VPos::Center)),
                )
        });
        chart.draw_series(dots).map_err(drawn)?;
    }
    Ok(())
}

fn power(value: f64) -> String {
    match value {
        value if value >= 1e6 => format!("{} M", (value / 1e6).round()),
        value if value >= 1e3 => format!("{} k", (value / 1e3).round()),
        value => value.to_string(),
    }
}
