package report

import (
	"fmt"
	"html"
	"html/template"
	"math"
	"strings"
)

// chart is a line plot as inline SVG: no script, no style from elsewhere.
type chart struct {
	Title  string
	Unit   string
	X      []float64
	Lines  []line
	Bands  []band               // phases, behind the lines
	XTitle string               //
	XText  func(float64) string // of a tick; nil: the number
	XTicks []float64            // nil: round numbers
}

type line struct {
	Name  string
	Color string
	Y     []float64
}

// band marks a phase on the time axis.
type band struct {
	Name     string
	From, To float64
}

const (
	chartWidth, chartHeight         = 760, 240
	marginLeft, marginRight         = 64, 12
	marginTop, marginBottom         = 26, 34
	plotWidth, plotHeight   float64 = chartWidth - marginLeft - marginRight, chartHeight - marginTop - marginBottom
)

// palette is told apart also by who does not see all colours.
var palette = []string{"#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#777777"}

// SVG draws the chart; nothing when there is nothing to draw.
func (c chart) SVG() template.HTML {
	top := 0.0
	for _, l := range c.Lines {
		for _, y := range l.Y {
			top = max(top, y)
		}
	}
	if len(c.X) < 2 || top == 0 {
		return ""
	}
	left, right := c.X[0], c.X[len(c.X)-1]
	ticks := niceTicks(top)
	top = ticks[len(ticks)-1]
	px := func(x float64) float64 { return marginLeft + (x-left)/(right-left)*plotWidth }
	py := func(y float64) float64 { return marginTop + plotHeight - y/top*plotHeight }

	var b strings.Builder
	fmt.Fprintf(&b, `<figure><figcaption>%s</figcaption><svg viewBox="0 0 %d %d" role="img" aria-label="%s">`,
		html.EscapeString(c.Title), chartWidth, chartHeight, html.EscapeString(c.Title))
	for i, p := range c.Bands {
		if i%2 == 0 {
			fmt.Fprintf(&b, `<rect class="band" x="%.1f" y="%d" width="%.1f" height="%.1f"/>`, px(p.From), marginTop, px(p.To)-px(p.From), plotHeight)
		}
		if i+1 < len(c.Bands) && px(p.To)-px(p.From) < 6*float64(len(p.Name)) {
			continue // its name would run into the next
		}
		fmt.Fprintf(&b, `<text class="phase" x="%.1f" y="%d">%s</text>`, px(p.From)+3, marginTop+11, html.EscapeString(p.Name))
	}
	for _, t := range ticks {
		fmt.Fprintf(&b, `<line class="grid" x1="%d" x2="%d" y1="%.1f" y2="%.1f"/><text class="tick" x="%d" y="%.1f" text-anchor="end">%s</text>`,
			marginLeft, chartWidth-marginRight, py(t), py(t), marginLeft-6, py(t)+4, tickText(t))
	}
	xticks := c.XTicks
	if xticks == nil {
		for _, t := range niceTicks(right - left) {
			xticks = append(xticks, left+t)
		}
	}
	for _, t := range xticks {
		if t < left || t > right {
			continue
		}
		text := tickText(t)
		if c.XText != nil {
			text = c.XText(t)
		}
		fmt.Fprintf(&b, `<text class="tick" x="%.1f" y="%d" text-anchor="middle">%s</text>`, px(t), chartHeight-marginBottom+16, text)
	}
	fmt.Fprintf(&b, `<text class="tick" x="%d" y="%d" text-anchor="end">%s</text>`, chartWidth-marginRight, chartHeight-3, html.EscapeString(c.XTitle))
	fmt.Fprintf(&b, `<text class="tick" x="4" y="14">%s</text>`, html.EscapeString(c.Unit))
	at := float64(marginLeft)
	for _, l := range c.Lines {
		fmt.Fprintf(&b, `<rect x="%.0f" y="6" width="12" height="3" fill="%s"/><text class="key" x="%.0f" y="12">%s</text>`, at, l.Color, at+16, html.EscapeString(l.Name))
		at += 16 + 7*float64(len(l.Name)) + 14
		b.WriteString(`<polyline fill="none" stroke="` + l.Color + `" stroke-width="1.6" stroke-linejoin="round" points="`)
		for i, y := range l.Y {
			fmt.Fprintf(&b, "%.1f,%.1f ", px(c.X[i]), py(y))
		}
		b.WriteString(`"/>`)
	}
	b.WriteString(`</svg></figure>`)
	return template.HTML(b.String()) //nolint:gosec // everything that is not ours is escaped above
}

// niceTicks are round numbers from 0 to at least top.
func niceTicks(top float64) []float64 {
	step := math.Pow(10, math.Floor(math.Log10(top)))
	switch {
	case top/step < 2:
		step /= 5
	case top/step < 5:
		step /= 2
	}
	ticks := []float64{0}
	for t := step; ; t += step {
		ticks = append(ticks, t)
		if t >= top {
			return ticks
		}
	}
}

func tickText(v float64) string {
	switch {
	case v >= 1e6:
		return strings.TrimSuffix(fmt.Sprintf("%.1f", v/1e6), ".0") + " M"
	case v >= 1e4:
		return strings.TrimSuffix(fmt.Sprintf("%.1f", v/1e3), ".0") + " k"
	}
	return fmt.Sprintf("%g", math.Round(v*1000)/1000)
}
