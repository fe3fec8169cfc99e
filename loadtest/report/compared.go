package report

import (
	"fmt"
	"io"
	"math"
	"strings"
	"text/tabwriter"

	"github.com/madang-chat/madang/loadtest/meter"
)

// Compared is one transport of a comparison: the same work as the others', done
// for clients of its own. What could not be measured is negative.
type Compared struct {
	Transport  string     `json:"transport"`
	Clients    int        `json:"clients"`
	Owed       uint64     `json:"owed"`
	Kept       uint64     `json:"kept"`
	Lost       uint64     `json:"lost"`
	Duplicates uint64     `json:"duplicates"`
	Latency    meter.Dist `json:"latency_ms"` // meant to be sent → arrived

	// CPU in µs, of all servers; what they use without any client is taken off the
	// idle connection's.
	CPUPerDelivery     float64 `json:"cpu_us_per_delivery"`
	GatewayPerDelivery float64 `json:"gateway_cpu_us_per_delivery"`
	IdleCPU            float64 `json:"cpu_us_per_idle_connection_second"`
	CPUPerOpen         float64 `json:"cpu_us_per_connection_opened"`

	OpenTime       meter.Dist `json:"open_ms"`                      // its turn to connect → live
	GatewayPerConn float64    `json:"gateway_bytes_per_connection"` //
	KernelPerPair  float64    `json:"kernel_bytes_per_pair"`        // both ends

	// Bytes of the TCP streams, without what is below them.
	ReadPerDelivery     float64 `json:"bytes_read_per_delivery"`
	WrittenPerDelivery  float64 `json:"bytes_written_per_delivery"`
	RequestsPerDelivery float64 `json:"requests_per_delivery"`
	IdleRead            float64 `json:"bytes_read_per_idle_connection_second"`
	IdleWritten         float64 `json:"bytes_written_per_idle_connection_second"`
	IdleRequests        float64 `json:"requests_per_idle_connection_second"`
}

// comparedRow is a line of the comparison: one figure of all transports.
type comparedRow struct {
	title string
	unit  string
	of    func(Compared) float64
}

func (r comparedRow) titleWithUnit() string {
	if r.unit == "" {
		return r.title
	}
	return r.title + ", " + r.unit
}

// cell is the figure of one transport, to be read.
func (r comparedRow) cell(c Compared) string {
	switch v := r.of(c); {
	case v < 0:
		return "?"
	case v == math.Trunc(v):
		return fmt.Sprintf("%.0f", v)
	case v < 0.095:
		return fmt.Sprintf("%.3f", v)
	case v < 9.95:
		return fmt.Sprintf("%.2f", v)
	case v < 99.5:
		return fmt.Sprintf("%.1f", v)
	default:
		return fmt.Sprintf("%.0f", v)
	}
}

// comparedRows are the comparison's lines, in their order.
func comparedRows() []comparedRow {
	return []comparedRow{
		{"deliveries kept", "", func(c Compared) float64 { return float64(c.Kept) }},
		{"… lost", "", func(c Compared) float64 { return float64(c.Lost) }},
		{"… duplicate", "", func(c Compared) float64 { return float64(c.Duplicates) }},
		{"due → arrived, p50", "ms", func(c Compared) float64 { return c.Latency.P50 }},
		{"… p99", "ms", func(c Compared) float64 { return c.Latency.P99 }},
		{"… max", "ms", func(c Compared) float64 { return c.Latency.Max }},
		{"server CPU per delivery", "µs", func(c Compared) float64 { return c.CPUPerDelivery }},
		{"… the gateways' part", "µs", func(c Compared) float64 { return c.GatewayPerDelivery }},
		{"server CPU per idle connection and second", "µs", func(c Compared) float64 { return c.IdleCPU }},
		{"gateway memory per connection", "bytes", func(c Compared) float64 { return c.GatewayPerConn }},
		{"kernel memory per connection, both ends", "bytes", func(c Compared) float64 { return c.KernelPerPair }},
		{"client reads per delivery", "bytes", func(c Compared) float64 { return c.ReadPerDelivery }},
		{"… writes", "bytes", func(c Compared) float64 { return c.WrittenPerDelivery }},
		{"… requests", "", func(c Compared) float64 { return c.RequestsPerDelivery }},
		{"client reads per idle second", "bytes", func(c Compared) float64 { return c.IdleRead }},
		{"… writes", "bytes", func(c Compared) float64 { return c.IdleWritten }},
		{"… requests", "", func(c Compared) float64 { return c.IdleRequests }},
		{"opening: server CPU per connection", "µs", func(c Compared) float64 { return c.CPUPerOpen }},
		{"… connect → live, p50", "ms", func(c Compared) float64 { return c.OpenTime.P50 }},
		{"… p99", "ms", func(c Compared) float64 { return c.OpenTime.P99 }},
	}
}

// compared sets the transports side by side.
func (p printer) compared(all []Compared) {
	if len(all) == 0 {
		return
	}
	p.line("\nside by side, %d clients each:", all[0].Clients)
	tw := tabwriter.NewWriter(p.w, 0, 0, 2, ' ', tabwriter.AlignRight)
	var names []string
	for _, c := range all {
		names = append(names, c.Transport)
	}
	fmt.Fprintf(tw, "\t%s\t\n", strings.Join(names, "\t"))
	for _, row := range comparedRows() {
		var cells []string
		for _, c := range all {
			cells = append(cells, row.cell(c))
		}
		fmt.Fprintf(tw, "%s\t%s\t\n", row.titleWithUnit(), strings.Join(cells, "\t"))
	}
	tw.Flush()
}

// diffCompared sets what two comparisons say of a transport side by side.
func diffCompared(w io.Writer, a, b Compared) {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(tw, "\tA\tB\tchange\t\n")
	for _, row := range comparedRows() {
		diffRow(tw, row.titleWithUnit(), row.of(a), row.of(b), row.cell(a), row.cell(b))
	}
	tw.Flush()
}
