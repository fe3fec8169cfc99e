package grafana

import "encoding/json"

// Dashboard is one page: rows of panels.
type Dashboard struct {
	UID, Title, About string
	Rows              []Row
}

// Row is a line across the page with panels below it.
type Row struct {
	Title  string
	Panels []Panel
}

// Panel is one picture, or one number.
type Panel struct {
	Title string
	About string // what it means and what to do when it moves
	Kind  Kind
	Unit  string // Grafana's name of it
	Width int    // of 24; 0: 8, or 4 for a number
	// Good and Bad colour a number: green up to Good, red from Bad (or the other
	// way round when Bad is smaller). Both 0: no colours.
	Good, Bad float64
	// Max of the axis; 0: as it comes.
	Max     float64
	Queries []Query
	Stack   bool
}

// Kind is how a panel looks.
type Kind string

// Kinds.
const (
	Graph  Kind = "timeseries"
	Number Kind = "stat"
	Table  Kind = "table"
)

// Query is one question to Prometheus.
type Query struct {
	Expr   string
	Legend string
	// Quiet says that no answer is right while nothing goes wrong, or where the
	// part is not used.
	Quiet bool
}

// Units, in Grafana's words.
const (
	short   = "short"
	seconds = "s"
	bytesU  = "bytes"
	percent = "percentunit"
	perSec  = "ops"
	bytesPS = "Bps"
	micros  = "µs"
)

// JSON is the dashboard as Grafana reads it.
func (d Dashboard) JSON() ([]byte, error) {
	b, err := json.MarshalIndent(d.model(), "", "  ")
	return append(b, '\n'), err
}

type object = map[string]any

// datasource is a variable of the page, so that one set of dashboards serves any
// number of Prometheuses.
var datasource = object{"type": "prometheus", "uid": "${datasource}"}

func (d Dashboard) model() object {
	var panels []object
	id, y := 0, 0
	for _, row := range d.Rows {
		id++
		panels = append(panels, object{
			"id": id, "type": "row", "title": row.Title, "collapsed": false, "panels": []object{},
			"gridPos": object{"h": 1, "w": 24, "x": 0, "y": y},
		})
		y++
		x, height := 0, 0
		for _, p := range row.Panels {
			id++
			w, h := p.size()
			if x+w > 24 {
				x, y, height = 0, y+height, 0
			}
			panels = append(panels, p.model(id, object{"h": h, "w": w, "x": x, "y": y}))
			x, height = x+w, max(height, h)
		}
		y += height
	}
	return object{
		"uid": d.UID, "title": d.Title, "description": d.About, "tags": []string{"madang"},
		"schemaVersion": 39, "version": 1, "editable": true, "graphTooltip": 1, // one crosshair for all panels
		"timezone": "browser", "refresh": "30s", "time": object{"from": "now-1h", "to": "now"},
		"panels": panels,
		"templating": object{"list": []object{
			{"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus", "current": object{}, "hide": 0},
			{
				"name": "instance", "label": "Instance", "type": "query", "datasource": datasource,
				"query": object{"query": "label_values(madang_build_info, instance)", "refId": "instance"}, "definition": "label_values(madang_build_info, instance)",
				"refresh": 2, "sort": 1, "multi": true, "includeAll": true, "allValue": ".*", "current": object{"text": "All", "value": "$__all"},
			},
		}},
		"annotations": object{"list": []object{
			annotation("Deploys", deployQuery, "{{version}} runs", "blue"),
			annotation("Starts", startQuery, "{{instance}} started", "semi-dark-green"),
			annotation("Alerts", alertQuery, "{{alertname}}", "red"),
		}},
		"links": []object{
			{"title": "madang", "type": "dashboards", "tags": []string{"madang"}, "asDropdown": true, "includeVars": true, "keepTime": true},
			{"title": "Runbooks", "type": "link", "url": runbooks, "targetBlank": true, "icon": "doc"},
		},
	}
}

const runbooks = "https://github.com/madang-chat/madang/blob/main/docs/runbooks.md"

// What happened, drawn as lines across every graph.
const (
	deployQuery = `count by (version) (madang_build_info) unless count by (version) (madang_build_info offset 2m)`
	startQuery  = `changes(process_start_time_seconds{job=~"madang.*"}[1m]) > 0`
	alertQuery  = `ALERTS{alertstate="firing", alertname=~"Madang.*"}`
)

// AnnotationQueries are asked by every dashboard.
func AnnotationQueries() []string { return []string{deployQuery, startQuery, alertQuery} }

func annotation(name, expr, title, color string) object {
	return object{
		"name": name, "enable": true, "datasource": datasource, "expr": expr, "step": "30s",
		"titleFormat": title, "iconColor": color, "useValueForTime": "",
	}
}

func (p Panel) size() (w, h int) {
	w, h = p.Width, 8
	if p.Kind == Number {
		h = 4
	}
	if w == 0 {
		w = 8
		if p.Kind == Number {
			w = 4
		}
	}
	return w, h
}

func (p Panel) model(id int, pos object) object {
	var targets []object
	for i, q := range p.Queries {
		t := object{"refId": string(rune('A' + i)), "expr": q.Expr, "legendFormat": q.Legend, "datasource": datasource, "editorMode": "code"}
		if p.Kind == Graph {
			t["range"] = true
		} else {
			t["instant"] = true
		}
		if p.Kind == Table {
			t["format"] = "table"
		}
		targets = append(targets, t)
	}
	defaults := object{"unit": p.Unit, "min": 0}
	if p.Max != 0 {
		defaults["max"] = p.Max
	}
	if p.Good != 0 || p.Bad != 0 {
		steps := []object{{"color": "green", "value": nil}, {"color": "orange", "value": p.Good}, {"color": "red", "value": p.Bad}}
		if p.Bad < p.Good {
			steps = []object{{"color": "red", "value": nil}, {"color": "orange", "value": p.Bad}, {"color": "green", "value": p.Good}}
		}
		defaults["thresholds"] = object{"mode": "absolute", "steps": steps}
	}
	m := object{
		"id": id, "type": string(p.Kind), "title": p.Title, "description": p.About,
		"datasource": datasource, "gridPos": pos, "targets": targets,
	}
	switch p.Kind {
	case Graph:
		custom := object{"lineWidth": 1, "fillOpacity": 8, "showPoints": "never", "spanNulls": false}
		if p.Stack {
			custom["stacking"] = object{"mode": "normal"}
			custom["fillOpacity"] = 30
		}
		defaults["custom"] = custom
		m["options"] = object{
			"legend":  object{"displayMode": "list", "placement": "bottom", "showLegend": true},
			"tooltip": object{"mode": "multi", "sort": "desc"},
		}
	case Number:
		delete(defaults, "min")
		m["options"] = object{
			"reduceOptions": object{"calcs": []string{"lastNotNull"}, "fields": "", "values": false},
			"colorMode":     "value", "graphMode": "none", "textMode": "auto", "justifyMode": "auto",
		}
	case Table:
		m["options"] = object{"showHeader": true, "cellHeight": "sm"}
		m["transformations"] = []object{{"id": "organize", "options": object{"excludeByName": object{"Time": true, "__name__": true}}}}
	}
	m["fieldConfig"] = object{"defaults": defaults, "overrides": []object{}}
	return m
}
