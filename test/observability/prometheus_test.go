package observability

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/madang-chat/madang/internal/testkit"
	"github.com/madang-chat/madang/internal/testkit/fleet"
)

// prometheus is Debian's, as a process that scrapes a fleet every second.
type prometheus struct {
	addr string
}

// scrapeEvery is how often. A rate wants two scrapes in its window.
const scrapeEvery = time.Second

// rateInterval stands for Grafana's $__rate_interval: four scrapes and more.
const rateInterval = "6s"

// startPrometheus starts one that scrapes the fleet under the jobs that the
// dashboards know, and evaluates the rules of grafana/rules.
func startPrometheus(t testing.TB, f *fleet.Fleet) *prometheus {
	t.Helper()
	path, err := exec.LookPath("prometheus")
	if err != nil {
		t.Fatal("prometheus is not installed: make deps")
	}
	dir := t.TempDir()
	rules, err := filepath.Abs("../../grafana/rules")
	if err != nil {
		t.Fatal(err)
	}
	targets := func(nodes []*fleet.Node) string {
		var addrs []string
		for _, n := range nodes {
			addrs = append(addrs, strconv.Quote(n.AdminAddr))
		}
		return strings.Join(addrs, ", ")
	}
	config := fmt.Sprintf(`
global: {scrape_interval: %[1]s, scrape_timeout: %[1]s, evaluation_interval: %[1]s}
rule_files: [%[2]q]
scrape_configs:
  - {job_name: madang-api, static_configs: [{targets: [%[3]s]}]}
  - {job_name: madang-gateway, static_configs: [{targets: [%[4]s]}]}
`, scrapeEvery, rules+"/*s.yml", targets(f.APIs), targets(f.Gateways))
	config = strings.Replace(config, strconv.Quote(rules+"/*s.yml"), strconv.Quote(rules+"/recording.yml")+", "+strconv.Quote(rules+"/alerts.yml"), 1)
	file := filepath.Join(dir, "prometheus.yml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	p := &prometheus{addr: "127.0.0.1:" + strconv.Itoa(testkit.FreePort())}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, "--config.file="+file, "--storage.tsdb.path="+dir+"/data", "--web.listen-address="+p.addr, "--log.level=warn")
	cmd.Stdout, cmd.Stderr = log, log
	done, err := testkit.Launch(cmd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-done
		log.Close()
		if t.Failed() {
			text, _ := os.ReadFile(log.Name())
			t.Logf("Prometheus said:\n%s", text)
		}
	})
	fleet.Await(t, "Prometheus is ready", func() bool {
		res, err := http.Get("http://" + p.addr + "/-/ready")
		if err != nil {
			return false
		}
		res.Body.Close()
		return res.StatusCode == http.StatusOK
	})
	return p
}

// series is one line of an answer.
type series struct {
	Metric map[string]string
	Value  sample   // of an instant query
	Values []sample // of a range query
}

type sample struct {
	At    float64
	Value float64
}

// UnmarshalJSON reads [time, "value"].
func (s *sample) UnmarshalJSON(b []byte) error {
	var pair [2]any
	if err := json.Unmarshal(b, &pair); err != nil {
		return err
	}
	s.At, _ = pair[0].(float64)
	text, _ := pair[1].(string)
	v, err := strconv.ParseFloat(text, 64)
	s.Value = v
	return err
}

// ask asks one thing of the API.
func (p *prometheus) ask(path string, form url.Values, into any) error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.addr+path+"?"+form.Encode(), nil)
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return err
	}
	var answer struct {
		Status, Error string
		Data          json.RawMessage
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return fmt.Errorf("%s: %s", res.Status, body)
	}
	if answer.Status != "success" {
		return fmt.Errorf("%s: %s", res.Status, answer.Error)
	}
	return json.Unmarshal(answer.Data, into)
}

// query asks for the values of now.
func (p *prometheus) query(expr string) ([]series, error) {
	var data struct{ Result []series }
	err := p.ask("/api/v1/query", url.Values{"query": {expr}}, &data)
	return data.Result, err
}

// queryRange asks for the values of a while.
func (p *prometheus) queryRange(expr string, from, to time.Time, step time.Duration) ([]series, error) {
	var data struct{ Result []series }
	stamp := func(t time.Time) string { return strconv.FormatFloat(float64(t.UnixMilli())/1000, 'f', 3, 64) }
	err := p.ask("/api/v1/query_range", url.Values{"query": {expr}, "start": {stamp(from)}, "end": {stamp(to)}, "step": {step.String()}}, &data)
	return data.Result, err
}

// asGrafana fills in a dashboard's variables.
func asGrafana(expr string) string {
	return strings.NewReplacer("$__rate_interval", rateInterval, "$instance", ".*").Replace(expr)
}
