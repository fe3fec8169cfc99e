package plan

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
)

// WriteJSON writes the plan for programs.
func (p Plan) WriteJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(p)
}

// WriteText writes the plan for people.
func (p Plan) WriteText(w io.Writer) error {
	var b strings.Builder
	l, s := p.Load, p.Shape
	fmt.Fprintf(&b, "Load    %s connections of %s users; %s rooms of %s members; %s messages/s of %.0f bytes\n",
		count(float64(l.Connections)), count(float64(l.Users)), count(float64(l.Rooms)), number(l.Members), number(l.Rate), l.TextBytes)
	fmt.Fprintf(&b, "        %s deliveries/s; %s messages kept\n", number(model{l, s, nil}.deliveries()), count(model{l, s, nil}.kept()))
	fmt.Fprintf(&b, "Machine %s cores, %s, %s; Redis on %s; used to %.0f %% at the peak\n\n",
		number(s.Cores), bytesText(s.MemoryBytes), bits(s.NetworkBits), bytesText(s.RedisBytes), 100*s.Use)
	for _, part := range []Part{p.Gateways, p.APIs, p.Redis} {
		fmt.Fprintf(&b, "%s: %d", part.Name, part.Machines)
		if part.Spare > 0 {
			fmt.Fprintf(&b, " (%d spare)", part.Spare)
		} else if s.Replicas > 0 {
			fmt.Fprintf(&b, ", with %d replica(s) each: %d machines", s.Replicas, part.Machines*int64(1+s.Replicas))
		}
		b.WriteString("\n")
		decides := part.Decides()
		for _, n := range part.Needs {
			mark := " "
			if n == decides {
				mark = "→"
			}
			fmt.Fprintf(&b, "  %s %-10s %14s in all: %s machine(s)\n", mark, n.Of, n.text(), number(n.Machines))
		}
		b.WriteString("    each has")
		for i, n := range part.Each {
			if i > 0 {
				b.WriteString(",")
			}
			fmt.Fprintf(&b, " %s %s", n.text(), n.Of)
		}
		b.WriteString("\n\n")
	}
	fmt.Fprintf(&b, "Runs out first: %s\n", p.First)
	for _, n := range p.Notes {
		fmt.Fprintf(&b, "- %s\n", n)
	}
	m := measuredOn
	fmt.Fprintf(&b, "\nConstants measured on %s (%s, %d cores, Redis %s): %s. Measure on your machines, and leave room.\n", m.Date, m.CPU, m.Cores, m.Redis, Command)
	_, err := io.WriteString(w, b.String())
	return err
}

func (n Need) text() string {
	switch n.Unit {
	case "bytes":
		return bytesText(n.Total)
	case "bits/s":
		return bits(n.Total)
	case "":
		return count(n.Total)
	case "/s":
		return number(n.Total) + "/s of"
	}
	return number(n.Total) + " " + n.Unit
}

// number writes three significant digits, or whole thousands.
func number(v float64) string {
	switch {
	case v >= 1000:
		return count(v)
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return strings.TrimSuffix(fmt.Sprintf("%.1f", v), ".0")
	}
	return strings.TrimRight(strings.TrimRight(fmt.Sprintf("%.2f", v), "0"), ".")
}

// count writes 1234567 as 1,234,567.
func count(v float64) string {
	s := fmt.Sprintf("%.0f", v)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

func scaled(v, step float64, units []string) string {
	i := 0
	for v >= step && i < len(units)-1 {
		v /= step
		i++
	}
	return number(v) + " " + units[i]
}

func bytesText(v float64) string {
	return scaled(v, 1024, []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB"})
}

func bits(v float64) string {
	return scaled(v, 1000, []string{"bit/s", "kbit/s", "Mbit/s", "Gbit/s", "Tbit/s"})
}
