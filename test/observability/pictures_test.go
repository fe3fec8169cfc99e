package observability

import (
	"flag"
	"fmt"
	"html"
	"maps"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/madang-chat/madang/grafana"
)

var pictures = flag.Bool("pictures", false, "write docs/images/dashboard-*.png")

// Pictures of the dashboards with live data. Grafana is not in Debian: the
// panels' queries are asked of Prometheus and drawn here, and the pictures say so.
func TestPicturesOfDashboards(t *testing.T) {
	if !*pictures {
		t.Skip("go test ./test/observability -run Pictures -pictures writes them")
	}
	chromium, err := exec.LookPath("chromium-headless-shell")
	if err != nil {
		t.Fatal(err)
	}
	p := observed(t)
	from := time.Now()
	time.Sleep(100 * time.Second)
	to := time.Now()
	dir := t.TempDir()
	for name, d := range grafana.Dashboards() {
		page, height := draw(t, p, d, from.Add(10*time.Second), to)
		file := filepath.Join(dir, name+".html")
		if err := os.WriteFile(file, []byte(page), 0o600); err != nil {
			t.Fatal(err)
		}
		image, err := filepath.Abs("../../docs/images/dashboard-" + name + ".png")
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(chromium, "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync",
			"--hide-scrollbars", "--user-data-dir="+filepath.Join(dir, "profile"), fmt.Sprintf("--window-size=1440,%d", height), "--screenshot="+image, "file://"+file)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
}

// colors of lines, in order; readable on the dark ground.
var colors = []string{"#73bf69", "#f2cc0c", "#5794f2", "#ff9830", "#f2495c", "#b877d9", "#37872d", "#8ab8ff", "#fa6400", "#a352cc", "#96d98d", "#c0d8ff"}

const (
	columnWidth = 58 // pixels of one of 24 columns
	rowHeight   = 32 // and of a grid row
)

// draw makes a page of a dashboard, as wide as Grafana's grid.
func draw(t *testing.T, p *prometheus, d grafana.Dashboard, from, to time.Time) (page string, height int) {
	var b strings.Builder
	b.WriteString(`<!doctype html><meta charset="utf-8"><style>
body{margin:0;background:#111217;color:#ccccdc;font:13px system-ui,"DejaVu Sans",sans-serif;width:1440px}
h1{font-size:20px;font-weight:600;margin:14px 24px 2px}p{margin:0 24px;color:#8e8e9c}h2{font-size:14px;margin:12px 24px 6px;font-weight:600}
.row{display:flex;flex-wrap:wrap;gap:8px;padding:0 20px}.panel{background:#181b1f;border:1px solid #2c2e36;border-radius:3px;box-sizing:border-box;overflow:hidden;position:relative}
.title{padding:6px 8px;font-weight:600;font-size:12.5px;white-space:nowrap;overflow:hidden}.number{font-size:38px;text-align:center;font-weight:600;padding-top:10px}
.legend{position:absolute;bottom:4px;left:8px;right:8px;font-size:10.5px;color:#a0a0b0;white-space:nowrap;overflow:hidden}.legend b{display:inline-block;width:9px;height:3px;margin:0 4px 3px 0}
.legend span{margin-right:9px}table{margin:2px 8px;border-collapse:collapse;font-size:11px}td,th{padding:2px 10px 2px 0;text-align:left;font-weight:400}th{color:#8e8e9c}.none{color:#6e6e7c;text-align:center;padding-top:60px}
</style>`)
	fmt.Fprintf(&b, "<h1>%s</h1><p>%s Drawn from the answers of a real Prometheus to this dashboard's queries (not by Grafana), over %d s of a small test load.</p>",
		html.EscapeString(d.Title), html.EscapeString(d.About), int(to.Sub(from).Seconds()))
	height = 70
	for _, row := range d.Rows {
		fmt.Fprintf(&b, "<h2>%s</h2><div class=row>", html.EscapeString(row.Title))
		height += 36
		used, tall := 0, 0
		for _, panel := range row.Panels {
			columns, rows := panel.Width, 7
			if panel.Kind == grafana.Number {
				rows = 3
			}
			if columns == 0 {
				columns = 8
			}
			if used+columns > 24 {
				height += tall
				used, tall = 0, 0
			}
			used += columns
			w, h := columns*columnWidth-8, rows*rowHeight
			tall = max(tall, h+8)
			fmt.Fprintf(&b, `<div class=panel style="width:%dpx;height:%dpx"><div class=title>%s</div>`, w, h, html.EscapeString(panel.Title))
			content(t, &b, p, panel, w, h, from, to)
			b.WriteString("</div>")
		}
		height += tall
		b.WriteString("</div>")
	}
	return b.String(), height + 16
}

// line is one line of a graph.
type line struct {
	name   string
	values []sample
}

func content(t *testing.T, b *strings.Builder, p *prometheus, panel grafana.Panel, w, h int, from, to time.Time) {
	var lines []line
	for _, q := range panel.Queries {
		expr := asGrafana(q.Expr)
		if panel.Kind != grafana.Graph {
			answer, err := p.query(expr)
			if err != nil {
				t.Fatal(err)
			}
			switch {
			case panel.Kind == grafana.Table:
				table(b, answer, panel.Unit)
			case len(answer) > 0:
				fmt.Fprintf(b, `<div class=number style="color:%s">%s</div>`, colorOf(panel, answer[0].Value.Value), value(answer[0].Value.Value, panel.Unit))
			}
			continue
		}
		answer, err := p.queryRange(expr, from, to, time.Second)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range answer {
			name := q.Legend
			for k, v := range s.Metric {
				name = strings.ReplaceAll(name, "{{"+k+"}}", v)
			}
			lines = append(lines, line{name, s.Values})
		}
	}
	if panel.Kind == grafana.Graph {
		slices.SortFunc(lines, func(a, b line) int { return strings.Compare(a.name, b.name) })
		graph(b, lines, panel, w, h, from, to)
	}
}

func graph(b *strings.Builder, lines []line, panel grafana.Panel, w, h int, from, to time.Time) {
	if len(lines) == 0 {
		b.WriteString("<div class=none>nothing (none is right while all is well)</div>")
		return
	}
	top := panel.Max
	sums := map[float64]float64{}
	for _, l := range lines {
		for _, s := range l.values {
			v := s.Value
			if panel.Stack {
				sums[s.At] += v
				v = sums[s.At]
			}
			if !math.IsNaN(v) && !math.IsInf(v, 0) {
				top = max(top, v)
			}
		}
	}
	if top == 0 {
		top = 1
	}
	if panel.Unit == "bytes" {
		unit := math.Pow(1024, math.Floor(math.Log(max(top, 1))/math.Log(1024)))
		top = nice(top/unit) * unit
	} else {
		top = nice(top)
	}
	left, right, upper, lower := 62.0, 10.0, 32.0, 44.0
	width, height := float64(w)-left-right, float64(h)-upper-lower
	x := func(at float64) float64 {
		return left + width*(at-float64(from.UnixMilli())/1000)/to.Sub(from).Seconds()
	}
	y := func(v float64) float64 { return upper + height*(1-v/top) }
	fmt.Fprintf(b, `<svg width="%d" height="%d" style="position:absolute;top:0;left:0">`, w, h)
	for i := range 5 {
		v := top * float64(i) / 4
		fmt.Fprintf(b, `<line x1="%.0f" x2="%.0f" y1="%.1f" y2="%.1f" stroke="#2a2d35"/><text x="%.0f" y="%.1f" fill="#8e8e9c" font-size="10" text-anchor="end">%s</text>`,
			left, left+width, y(v), y(v), left-5, y(v)+3, html.EscapeString(value(v, panel.Unit)))
	}
	for s := 0; s <= int(to.Sub(from).Seconds()); s += 20 {
		at := float64(from.UnixMilli())/1000 + float64(s)
		fmt.Fprintf(b, `<text x="%.0f" y="%.1f" fill="#8e8e9c" font-size="10" text-anchor="middle">%s</text>`, x(at), upper+height+14, from.Add(time.Duration(s)*time.Second).UTC().Format("15:04:05"))
	}
	base := map[float64]float64{}
	for i, l := range lines {
		var path strings.Builder
		last := 0.0
		for _, s := range l.values {
			v := s.Value
			if math.IsNaN(v) || math.IsInf(v, 0) {
				last = 0
				continue
			}
			if panel.Stack {
				base[s.At] += v
				v = base[s.At]
			}
			command := "L"
			if last == 0 || s.At-last > 2.5 {
				command = "M"
			}
			fmt.Fprintf(&path, "%s%.1f %.1f", command, x(s.At), y(min(v, top)))
			last = s.At
		}
		fmt.Fprintf(b, `<path d="%s" fill="none" stroke="%s" stroke-width="1.4"/>`, path.String(), colors[i%len(colors)])
	}
	b.WriteString("</svg><div class=legend>")
	for i, l := range lines {
		fmt.Fprintf(b, `<span><b style="background:%s"></b>%s</span>`, colors[i%len(colors)], html.EscapeString(l.name))
	}
	b.WriteString("</div>")
}

func table(b *strings.Builder, answer []series, unit string) {
	if len(answer) == 0 {
		b.WriteString("<div class=none>nothing</div>")
		return
	}
	names := slices.Sorted(maps.Keys(answer[0].Metric))
	b.WriteString("<table><tr>")
	for _, n := range names {
		fmt.Fprintf(b, "<th>%s</th>", html.EscapeString(n))
	}
	b.WriteString("<th>value</th></tr>")
	for _, s := range answer {
		b.WriteString("<tr>")
		for _, n := range names {
			fmt.Fprintf(b, "<td>%s</td>", html.EscapeString(s.Metric[n]))
		}
		fmt.Fprintf(b, "<td>%s</td></tr>", value(s.Value.Value, unit))
	}
	b.WriteString("</table>")
}

// colorOf is what Grafana's thresholds make of a number.
func colorOf(p grafana.Panel, v float64) string {
	const green, orange, red = "#73bf69", "#ff9830", "#f2495c"
	switch {
	case p.Good == 0 && p.Bad == 0:
		return "#ccccdc"
	case p.Bad < p.Good && v >= p.Good, p.Bad > p.Good && v < p.Good:
		return green
	case p.Bad < p.Good && v < p.Bad, p.Bad > p.Good && v >= p.Bad:
		return red
	}
	return orange
}

// nice is a round number above v.
func nice(v float64) float64 {
	p := math.Pow(10, math.Floor(math.Log10(v)))
	for _, m := range []float64{1, 1.2, 1.6, 2, 2.4, 3.2, 4, 5, 6, 8, 10} {
		if m*p >= v*0.9999 {
			return m * p
		}
	}
	return 10 * p
}

// value writes a number in a unit, as Grafana would.
func value(v float64, unit string) string {
	scale := func(step float64, units ...string) string {
		i, x := 0, v
		for math.Abs(x) >= step && i < len(units)-1 {
			x /= step
			i++
		}
		return strings.TrimSuffix(strings.TrimRight(fmt.Sprintf("%.2f", x), "0"), ".") + units[i]
	}
	switch unit {
	case "s":
		switch {
		case v == 0:
			return "0"
		case v < 0.001:
			return fmt.Sprintf("%.3g µs", v*1e6)
		case v < 1:
			return fmt.Sprintf("%.3g ms", v*1e3)
		}
		return fmt.Sprintf("%.3g s", v)
	case "bytes":
		return scale(1024, " B", " KiB", " MiB", " GiB")
	case "Bps":
		return scale(1000, " B/s", " kB/s", " MB/s")
	case "percentunit":
		return strings.TrimSuffix(strings.TrimRight(fmt.Sprintf("%.3f", v*100), "0"), ".") + " %"
	case "ops":
		return scale(1000, "/s", "k/s", "M/s")
	case "µs":
		return scale(1000, " µs", " ms")
	}
	return scale(1000, "", "k", "M")
}
