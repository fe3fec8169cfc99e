package report

import (
	"bytes"
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"maps"
	"math"
	"slices"
)

//go:embed page.html.tmpl
var pageText string

var page = template.Must(template.New("page").Parse(pageText))

// WriteHTML writes the result as one page that needs nothing from elsewhere.
func (r *Result) WriteHTML(w io.Writer) error {
	var text bytes.Buffer
	r.WriteText(&text)
	err := page.Execute(w, struct {
		*Result
		Text   string
		Charts []template.HTML
		Side   []sideRow
	}{r, text.String(), r.charts(), r.side()})
	if err != nil {
		return fmt.Errorf("writing the page: %w", err)
	}
	return nil
}

// sideRow is a line of the table that sets transports side by side.
type sideRow struct {
	Title string
	Cells []string
}

func (r *Result) side() (rows []sideRow) {
	if len(r.Compared) == 0 {
		return nil
	}
	for _, row := range comparedRows() {
		line := sideRow{Title: row.titleWithUnit()}
		for _, c := range r.Compared {
			line.Cells = append(line.Cells, row.cell(c))
		}
		rows = append(rows, line)
	}
	return rows
}

func (r *Result) charts() []template.HTML {
	var all []template.HTML
	add := func(c chart) {
		if svg := c.SVG(); svg != "" {
			all = append(all, svg)
		}
	}
	bands := r.bands()
	overTime := func(title, unit string, lines ...line) chart {
		c := chart{Title: title, Unit: unit, Bands: bands, XTitle: "seconds", Lines: lines}
		for _, s := range r.Series {
			c.X = append(c.X, float64(s.T))
		}
		for i := range c.Lines {
			c.Lines[i].Color = palette[i%len(palette)]
		}
		return c
	}
	of := func(name string, f func(Second) float64) line {
		l := line{Name: name}
		for _, s := range r.Series {
			l.Y = append(l.Y, f(s))
		}
		return l
	}
	add(overTime("Latency: from when a message was due to be sent to its arrival", "ms",
		of("p50", func(s Second) float64 { return s.P50 }), of("p99", func(s Second) float64 { return s.P99 }),
		of("max", func(s Second) float64 { return s.Max })))
	add(r.percentiles())
	add(overTime("Deliveries per second", "/s", of("delivered", func(s Second) float64 { return float64(s.Arrived) })))
	add(overTime("Sends per second", "/s", of("acknowledged", func(s Second) float64 { return float64(s.Acked) }),
		of("held back", func(s Second) float64 { return float64(s.Refused) })))
	add(overTime("Connections", "", of("live", func(s Second) float64 { return float64(s.Live) }),
		of("opened per second", func(s Second) float64 { return float64(s.Opened) }),
		of("dropped per second", func(s Second) float64 { return float64(s.Drops) })))
	add(overTime("CPU", "cores", r.byRole(func(s Second) map[string]float64 { return s.CPU })...))
	add(overTime("Resident memory", "MiB", r.byRole(func(s Second) map[string]float64 { return s.RSSMiB })...))
	add(overTime("Kernel memory in TCP buffers", "MiB", of("tcp", func(s Second) float64 { return s.TCPMiB })))
	return all
}

// byRole is a line per role of a process.
func (r *Result) byRole(f func(Second) map[string]float64) (lines []line) {
	roles := map[string]bool{}
	for _, s := range r.Series {
		for role := range f(s) {
			roles[role] = true
		}
	}
	for _, role := range slices.Sorted(maps.Keys(roles)) {
		l := line{Name: role}
		for _, s := range r.Series {
			l.Y = append(l.Y, f(s)[role])
		}
		lines = append(lines, l)
	}
	return lines
}

// bands are the phases as the seconds have them.
func (r *Result) bands() (bands []band) {
	for i, s := range r.Series {
		if i == 0 || s.Phase != bands[len(bands)-1].Name {
			bands = append(bands, band{Name: s.Phase, From: float64(s.T)})
		}
		bands[len(bands)-1].To = float64(min(s.T+1, len(r.Series)-1))
	}
	return bands
}

// percentiles is the curve of every phase that had deliveries, over the
// percentile on a scale of nines.
func (r *Result) percentiles() chart {
	c := chart{
		Title: "Latency by percentile", Unit: "ms", XTitle: "percentile",
		XText: func(x float64) string { return fmt.Sprintf("%.6g", 100*(1-math.Pow(10, -x))) },
	}
	deepest := 0.0
	for _, p := range r.Phases {
		if p.Latency.Count > 0 {
			deepest = max(deepest, math.Log10(float64(p.Latency.Count)))
		}
	}
	deepest = min(math.Floor(deepest), 5)
	for x := 0.0; x <= deepest; x += 0.05 {
		c.X = append(c.X, x)
	}
	for x := 0.0; x <= deepest; x++ {
		c.XTicks = append(c.XTicks, x)
	}
	for _, p := range r.Phases {
		if len(p.Curve) == 0 {
			continue
		}
		l := line{Name: p.Name, Color: palette[len(c.Lines)%len(palette)]}
		k := 0
		for _, x := range c.X {
			for k+1 < len(p.Curve) && p.Curve[k].Percentile < 100*(1-math.Pow(10, -x)) {
				k++
			}
			l.Y = append(l.Y, p.Curve[k].Ms)
		}
		c.Lines = append(c.Lines, l)
	}
	return c
}
