package test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"github.com/madang-chat/madang/internal/app"
	"github.com/madang-chat/madang/internal/config"
	"github.com/madang-chat/madang/internal/testkit"
	"github.com/madang-chat/madang/test/proxy"
)

// pageTimeout bounds everything a test does in a tab.
const pageTimeout = 60 * time.Second

// startDev runs `madang dev` in this process, on free ports.
func startDev(t *testing.T, change ...func(*config.Dev)) *app.Dev {
	t.Helper()
	d := beginDev(t, change...)
	t.Cleanup(func() { stopDev(t, d) })
	return d
}

// beginDev is startDev for a server that the test stops.
func beginDev(t *testing.T, change ...func(*config.Dev)) *app.Dev {
	t.Helper()
	c := config.Defaults[config.Dev]()
	c.APIAddr, c.GatewayAddr, c.AdminAddr = "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0"
	for _, f := range change {
		f(&c)
	}
	d, err := app.NewDev(c, app.NewLogger(config.Process{LogFormat: "text", LogLevel: "warn"}, os.Stderr))
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	return d
}

func stopDev(t *testing.T, d *app.Dev) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), pageTimeout)
	defer cancel()
	if err := d.Stop(ctx); err != nil {
		t.Error(err)
	}
}

// browser starts a headless Chromium that ends with the test.
func browser(t *testing.T) context.Context {
	t.Helper()
	var path string
	for _, name := range []string{"chromium-headless-shell", "headless-shell", "chromium", "google-chrome"} {
		if p, err := exec.LookPath(name); err == nil {
			path = p
			break
		}
	}
	if path == "" {
		t.Fatal("no Chromium is installed: make deps installs one")
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(path),
		chromedp.NoSandbox, // it refuses to run as root otherwise
		chromedp.Flag("disable-dev-shm-usage", true),
		chromedp.Flag("lang", "en-GB"),
		chromedp.Env("LANG=en_GB.UTF-8"),
		chromedp.WSURLReadTimeout(pageTimeout),
	)
	allocator, cancel := chromedp.NewExecAllocator(context.Background(), options...)
	t.Cleanup(cancel)
	ctx, cancel := chromedp.NewContext(allocator)
	t.Cleanup(cancel)
	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("starting %s: %v", path, err)
	}
	return ctx
}

// tab is a tab with somebody in front of it.
type tab struct {
	t   *testing.T
	ctx context.Context
}

// openTab opens a page; errors that its scripts do not catch fail the test.
func openTab(t *testing.T, browser context.Context, width, height int64, url string) *tab {
	t.Helper()
	ctx, cancel := chromedp.NewContext(browser)
	t.Cleanup(cancel)
	if err := chromedp.Do(ctx); err != nil { // the tab lives as long as this context
		t.Fatal(err)
	}
	err := chromedp.Listen(ctx, func(ev any) {
		if e, ok := ev.(*runtime.EventExceptionThrown); ok {
			t.Errorf("uncaught in the page: %s", e.ExceptionDetails.Text)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	p := &tab{t, ctx}
	p.does(chromedp.EmulateViewport(width, height, chromedp.EmulateScale(2)), chromedp.Navigate(url))
	return p
}

// does carries out steps, within pageTimeout.
func (p *tab) does(steps ...chromedp.Action[chromedp.Void]) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, pageTimeout)
	defer cancel()
	if err := chromedp.Do(ctx, steps...); err != nil {
		p.t.Fatalf("%v; the page shows:\n%s", err, p.text())
	}
}

// text is what the page shows.
func (p *tab) text() string {
	ctx, cancel := context.WithTimeout(p.ctx, pageTimeout)
	defer cancel()
	s, err := chromedp.Run(ctx, chromedp.Evaluate[string](`document.body.innerText`))
	if err != nil {
		return err.Error()
	}
	return s
}

func css(selector string) chromedp.CSS { return chromedp.CSS(selector) }

// pressEnter presses the key and not the character, which an element that takes
// the key for itself would get as a newline.
func pressEnter(ctx context.Context, t *chromedp.Target) error {
	for _, typ := range []input.DispatchKeyEventType{input.DispatchKeyEventTypeRawKeyDown, input.DispatchKeyEventTypeKeyUp} {
		if _, err := cdp.Call(ctx, t, input.DispatchKeyEvent, input.DispatchKeyEventParams{
			Type: typ, Key: "Enter", Code: "Enter", WindowsVirtualKeyCode: 13, NativeVirtualKeyCode: 13,
		}); err != nil {
			return err
		}
	}
	return nil
}

func (p *tab) comesInAs(name string) {
	p.t.Helper()
	p.does(
		chromedp.WaitVisible(css(`#name`)),
		chromedp.SendKeys(css(`#name`), name),
		chromedp.Click(css(`#enter button`)),
		chromedp.WaitVisible(css(`#app`)),
	)
	p.sees("the connection", `document.querySelector("#dot.online")`) // on a phone it is out of view
}

func (p *tab) types(text string) {
	p.t.Helper()
	p.does(chromedp.SendKeys(css(`#text`), text), chromedp.Func(pressEnter))
}

// sees waits until an expression holds in the page.
func (p *tab) sees(what, expression string) {
	p.t.Helper()
	deadline := time.Now().Add(pageTimeout / 2)
	for {
		ctx, cancel := context.WithTimeout(p.ctx, pageTimeout)
		holds, err := chromedp.Run(ctx, chromedp.Evaluate[bool]("!!("+expression+")"))
		cancel()
		if holds {
			return
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("waited in vain for %s (%v); the page shows:\n%s", what, err, p.text())
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// seesMessages waits until these messages are shown, all of them sent, in order.
func (p *tab) seesMessages(texts ...string) {
	p.t.Helper()
	quoted := make([]string, len(texts))
	for i, s := range texts {
		quoted[i] = fmt.Sprintf("%q", s)
	}
	p.sees("the messages "+strings.Join(quoted, ", "), fmt.Sprintf(
		`JSON.stringify([...document.querySelectorAll("#messages li:not(.system, .pending) .bubble")].map(b => b.textContent)) === JSON.stringify([%s])`,
		strings.Join(quoted, ",")))
}

func TestTwoTabsChat(t *testing.T) {
	dev := startDev(t)
	chromium := browser(t)
	alice := openTab(t, chromium, 1100, 720, dev.URL()+"/#room=yard")
	alice.comesInAs("alice")
	alice.sees("an open room", `document.querySelector("#room-name").textContent === "yard"`)

	bob := openTab(t, chromium, 390, 720, dev.URL()+"/#room=yard")
	bob.comesInAs("bob")
	alice.sees("bob's coming", `[...document.querySelectorAll("#messages .system")].some(n => n.textContent === "bob joined")`)

	alice.types("hi bob")
	bob.seesMessages("hi bob")
	bob.types("hi alice, <b>nice</b> yard & all")
	alice.seesMessages("hi bob", "hi alice, <b>nice</b> yard & all")
	bob.seesMessages("hi bob", "hi alice, <b>nice</b> yard & all")

	// Nothing is sent twice, and a reload shows the same.
	alice.does(chromedp.Reload())
	alice.seesMessages("hi bob", "hi alice, <b>nice</b> yard & all")
}

// TestWhatIsWrittenFastComesInItsOrder: a request that takes its time is not overtaken
// by the next message's.
func TestWhatIsWrittenFastComesInItsOrder(t *testing.T) {
	dev := startDev(t)
	alice := openTab(t, browser(t), 900, 700, dev.URL()+"/#room=yard")
	alice.comesInAs("alice")
	alice.does(chromedp.Evaluate[chromedp.Void](`
		(() => {
			const real = fetch, slow = new Promise((done) => { window.release = done; });
			let sends = 0;
			window.fetch = async (url, init) => {
				if (String(url).endsWith("/messages") && sends++ === 0) await slow;
				return real(url, init);
			};
		})()`))
	alice.types("one")
	alice.types("two")
	alice.types("three")
	alice.does(chromedp.Evaluate[chromedp.Void](`(() => { setTimeout(release, 300); })()`))
	alice.seesMessages("one", "two", "three")
}

// TestThePageReceivesOverEvents: the same page over server-sent events, from
// another origin than its own; they end, and it comes back with its positions.
func TestThePageReceivesOverEvents(t *testing.T) {
	dev := startDev(t)
	chromium := browser(t)
	alice := openTab(t, chromium, 900, 700, dev.URL()+"/#room=yard")
	alice.comesInAs("alice")
	bob := openTab(t, chromium, 900, 700, dev.URL()+"/?transport=sse#room=yard")
	bob.does(chromedp.Evaluate[chromedp.Void](`
		(() => {
			const real = fetch, open = [];
			window.WebSocket = undefined;
			window.tunnel = false;
			window.streams = 0;
			window.fetch = (url, init) => {
				if (!String(url).endsWith("/v1/events")) return real(url, init);
				if (window.tunnel) return Promise.reject(new TypeError("tunnel"));
				const c = new AbortController();
				init.signal.addEventListener("abort", () => c.abort());
				open.push(c);
				window.streams++;
				return real(url, { ...init, signal: c.signal });
			};
			window.enterTunnel = () => { window.tunnel = true; for (const c of open) c.abort(); };
			window.leaveTunnel = () => { window.tunnel = false; };
		})()`))
	bob.comesInAs("bob")
	alice.types("one")
	bob.seesMessages("one")
	bob.types("two")
	alice.seesMessages("one", "two")
	bob.does(chromedp.Evaluate[chromedp.Void](`enterTunnel()`))
	bob.sees("that the connection is gone", `!document.querySelector("#dot.online")`)
	alice.types("three")
	alice.seesMessages("one", "two", "three")
	bob.does(chromedp.Evaluate[chromedp.Void](`leaveTunnel()`))
	bob.sees("the connection", `document.querySelector("#dot.online")`)
	bob.seesMessages("one", "two", "three")
	bob.sees("that it was over events", `window.streams >= 2`)
}

// TestABrowsersEventSource: a real EventSource, with tickets, from another origin;
// what came while it was away comes with the time of its last event. A long poll of
// the same page passes the browser's preflight.
func TestABrowsersEventSource(t *testing.T) {
	dev := startDev(t)
	page := openTab(t, browser(t), 900, 700, dev.URL())
	page.does(chromedp.Evaluate[chromedp.Void](`(async () => {
		const gateway = "http://`+dev.GatewayAddr()+`";
		const post = async (url, body, token) => {
			const res = await fetch(url, { method: "POST", body: JSON.stringify(body),
				headers: { "Content-Type": "application/json", ...(token && { Authorization: "Bearer " + token }) } });
			if (!res.ok) throw new Error(url + ": " + res.status + " " + await res.text());
			return res.json();
		};
		const token = async (user) => (await post("/dev/token", { user })).token;
		const alice = await token("alice"), bob = await token("bob");
		await post("/v1/rooms", { id: "yard", members: ["bob"] }, alice);
		const says = (text) => post("/v1/rooms/yard/messages", { type: "text", text }, alice);
		const got = [];
		let last = "";
		const listens = async (more) => {
			const { ticket } = await post("/v1/tickets", {}, bob);
			const source = new EventSource(gateway + "/v1/events?ticket=" + ticket + more);
			source.onmessage = (e) => {
				const event = JSON.parse(e.data);
				got.push(event.type === "message" ? event.body.text : event.type);
				last = e.lastEventId;
			};
			return source;
		};
		const until = async (...want) => {
			for (let i = 0; JSON.stringify(got) !== JSON.stringify(want); i++) {
				if (i > 1000) throw new Error("got " + JSON.stringify(got) + ", want " + JSON.stringify(want));
				await new Promise((done) => setTimeout(done, 10));
			}
		};
		const first = await listens("");
		await until("hello");
		const one = await says("one");
		await until("hello", "one");
		if (last !== one.id.split("-")[0]) throw new Error("the last event is " + last + ", the message " + one.id);
		first.close();
		await says("two");
		got.length = 0;
		const second = await listens("&last_event_id=" + last);
		await until("hello", "one", "two", "resumed");
		await says("three");
		await until("hello", "one", "two", "resumed", "three");
		second.close();

		const { rooms } = await post(gateway + "/v1/poll", { wait_s: 0 }, bob);
		const four = await says("four");
		const answer = await post(gateway + "/v1/poll", { rooms }, bob);
		if (answer.events.length !== 1 || answer.events[0].id !== four.id || answer.rooms.yard !== four.id) throw new Error(JSON.stringify(answer));
	})()`, chromedp.EvalAwaitPromise))
}

// TestAPageListensAsTheDocumentSays: what docs/transports.md has pages do with an
// EventSource brings them back, with what came meanwhile.
func TestAPageListensAsTheDocumentSays(t *testing.T) {
	text, err := os.ReadFile("../docs/transports.md")
	if err != nil {
		t.Fatal(err)
	}
	_, listen, _ := strings.Cut(string(text), "```js\n")
	listen, _, found := strings.Cut(listen, "```\n")
	if !found {
		t.Fatal("the document shows no script")
	}
	dev := startDev(t)
	way, err := proxy.Listen(dev.GatewayAddr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(way.Close)
	page := openTab(t, browser(t), 900, 700, dev.URL())
	page.does(chromedp.Evaluate[chromedp.Void](`(async () => {`+listen+`
		const post = async (url, body, token) => {
			const res = await fetch(url, { method: "POST", body: JSON.stringify(body),
				headers: { "Content-Type": "application/json", ...(token && { Authorization: "Bearer " + token }) } });
			if (!res.ok) throw new Error(url + ": " + res.status + " " + await res.text());
			return res.json();
		};
		const token = async (user) => (await post("/dev/token", { user })).token;
		const alice = await token("alice"), bob = await token("bob");
		await post("/v1/rooms", { id: "yard", members: ["bob"] }, alice);
		window.says = (text) => post("/v1/rooms/yard/messages", { type: "text", text }, alice);
		window.got = new Set(), window.hellos = 0, window.tickets = true;
		listen("http://`+way.Addr()+`", async () => {
			if (!tickets) throw new Error("the API is away");
			return (await post("/v1/tickets", {}, bob)).ticket;
		}, (e) => {
			if (e.type === "hello") hellos++;
			if (e.type === "message") got.add(e.body.text); // what comes twice is one
		});
	})()`, chromedp.EvalAwaitPromise))
	page.sees("a stream", "hellos === 1")
	page.does(chromedp.Evaluate[chromedp.Void](`says("one")`))
	page.sees("the message", "got.has('one')")
	for i, text := range []string{"two", "three"} {
		page.does(chromedp.Evaluate[chromedp.Void](`window.tickets = false`))
		way.Cut()
		page.does(chromedp.Evaluate[chromedp.Void](fmt.Sprintf(`says(%q).then(() => { window.tickets = true; })`, text), chromedp.EvalAwaitPromise))
		page.sees("a stream again", fmt.Sprintf("hellos === %d", i+2))
		page.sees("what came meanwhile", "got.has('"+text+"')")
	}
}

// TestThePageComesBackByItself: sockets break, the gateway stays away for a
// while; what was said meanwhile arrives, once and in order, in an open page.
func TestThePageComesBackByItself(t *testing.T) {
	dev := startDev(t)
	chromium := browser(t)
	alice := openTab(t, chromium, 900, 700, dev.URL()+"/#room=yard")
	alice.comesInAs("alice")
	bob := openTab(t, chromium, 900, 700, dev.URL()+"/#room=yard")
	// What the page's sockets are told can be switched off, as in a tunnel.
	bob.does(chromedp.Evaluate[chromedp.Void](`
		(() => {
			const Real = WebSocket;
			const open = new Set();
			window.tunnel = false;
			window.WebSocket = class extends Real {
				constructor(...args) {
					super(...args);
					if (window.tunnel) super.close();
					open.add(this);
				}
			};
			window.enterTunnel = () => { window.tunnel = true; for (const s of open) s.close(); };
			window.leaveTunnel = () => { window.tunnel = false; };
		})()`))
	bob.comesInAs("bob")
	alice.types("one")
	bob.seesMessages("one")
	var texts []string
	for round := range 3 {
		bob.does(chromedp.Evaluate[chromedp.Void](`enterTunnel()`))
		bob.sees("that the connection is gone", `!document.querySelector("#dot.online")`)
		for i := range 3 {
			text := fmt.Sprintf("said in tunnel %d, %d", round, i)
			alice.types(text)
			texts = append(texts, text)
		}
		alice.seesMessages(append([]string{"one"}, texts...)...)
		bob.does(chromedp.Evaluate[chromedp.Void](`leaveTunnel()`))
		bob.sees("the connection", `document.querySelector("#dot.online")`)
		bob.seesMessages(append([]string{"one"}, texts...)...)
	}
}

// The embedded Redis forgets its rooms when the server ends. Whoever has one open goes
// on in it, and is told so.
func TestThePageMakesARoomAgainThatTheServerForgot(t *testing.T) {
	api, gateway := fmt.Sprintf("127.0.0.1:%d", testkit.FreePort()), fmt.Sprintf("127.0.0.1:%d", testkit.FreePort())
	sameAddrs := func(c *config.Dev) { c.APIAddr, c.GatewayAddr = api, gateway }
	d := beginDev(t, sameAddrs)
	b := browser(t)
	alice := openTab(t, b, 1000, 700, d.URL()+"/")
	alice.does(chromedp.Evaluate[chromedp.Void](`void (window.told = [], new MutationObserver((list) => list.forEach((m) =>
		m.addedNodes.forEach((n) => n.classList.contains("bad") && told.push(n.textContent)))).observe(document.getElementById("toasts"), {childList: true}))`))
	alice.comesInAs("alice")
	alice.does(chromedp.Evaluate[chromedp.Void](`void (location.hash = "room=yard")`))
	bob := openTab(t, b, 1000, 700, d.URL()+"/#room=yard")
	bob.comesInAs("bob")
	bob.sees("the room", `!document.getElementById("room").hidden`)
	alice.types("before")
	bob.sees("before", `document.body.innerText.includes("before")`)

	stopDev(t, d)
	alice.sees("the banner", `!document.getElementById("banner").hidden`)
	d = beginDev(t, sameAddrs)
	t.Cleanup(func() { stopDev(t, d) })
	for _, tab := range []*tab{alice, bob} {
		tab.sees("that the room was made again", `document.body.innerText.includes("made again") && document.getElementById("banner").hidden`)
	}
	bob.types("answer")
	alice.sees("the answer", `document.body.innerText.includes("answer")`)
	alice.sees("no error told beside the banner", `told.join() == ""`)
}

// TestThePageFillsAGap: more was said than a resume pushes; the page is told so
// and pages the rest from history.
func TestThePageFillsAGap(t *testing.T) {
	dev := startDev(t, func(c *config.Dev) { c.ResumePerRoom = 5 })
	chromium := browser(t)
	alice := openTab(t, chromium, 900, 700, dev.URL()+"/#room=yard")
	alice.comesInAs("alice")
	bob := openTab(t, chromium, 900, 700, dev.URL()+"/#room=yard")
	bob.does(chromedp.Evaluate[chromedp.Void](`
		(() => {
			const Real = WebSocket;
			window.WebSocket = class extends Real {
				constructor(...args) { super(...args); window.last = this; if (window.tunnel) super.close(); }
			};
		})()`))
	bob.comesInAs("bob")
	alice.types("before")
	bob.seesMessages("before")
	bob.does(chromedp.Evaluate[chromedp.Void](`(() => { window.tunnel = true; window.last.close(); })()`))
	bob.sees("that the connection is gone", `!document.querySelector("#dot.online")`)
	want := []string{"before"}
	for i := range 30 {
		text := fmt.Sprintf("missed %d", i)
		want = append(want, text)
		alice.types(text)
	}
	alice.seesMessages(want...)
	bob.does(chromedp.Evaluate[chromedp.Void](`(() => { window.tunnel = false; })()`))
	bob.seesMessages(want...)
	alice.types("after")
	bob.seesMessages(append(want, "after")...)
}

// TestThePagePagesUpward: a room with a long past shows its end first, and the
// rest as one scrolls.
func TestThePagePagesUpward(t *testing.T) {
	dev := startDev(t)
	chromium := browser(t)
	alice := openTab(t, chromium, 900, 700, dev.URL()+"/#room=yard")
	alice.comesInAs("alice")
	alice.sees("an open room", `document.querySelector("#room-name").textContent === "yard"`)
	alice.does(chromedp.Evaluate[chromedp.Void](`(async () => {
		const { token } = await (await fetch("/dev/token", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ user: "carol" }) })).json();
		const headers = { "Content-Type": "application/json", Authorization: "Bearer " + token };
		await fetch("/dev/join", { method: "POST", headers, body: JSON.stringify({ room: "yard" }) });
		for (let i = 0; i < 180; i++) await fetch("/v1/rooms/yard/messages", { method: "POST", headers, body: JSON.stringify({ type: "text", text: "line " + i }) });
	})()`, chromedp.EvalAwaitPromise))
	alice.does(chromedp.Reload())
	alice.sees("the end of the log, and not its beginning", `(() => {
		const all = [...document.querySelectorAll("#messages .bubble")].map(b => b.textContent);
		return all.at(-1) === "line 179" && all.length < 180 && !document.querySelector("[aria-current=true] .badge");
	})()`)
	alice.does(chromedp.Evaluate[chromedp.Void](`(() => {
		window.up = setInterval(() => { document.querySelector("#scroll").scrollTop = 0; }, 50);
	})()`))
	want := make([]string, 180)
	for i := range want {
		want[i] = fmt.Sprintf("line %d", i)
	}
	alice.seesMessages(want...)
}

// TestAPageThatIsOpenForLong: what comes takes a browser the longer the more it shows,
// so the page shows the newest, and the others to who scrolls up.
func TestAPageThatIsOpenForLong(t *testing.T) {
	dev := startDev(t)
	alice := openTab(t, browser(t), 900, 700, dev.URL()+"/#room=yard")
	alice.comesInAs("alice")
	alice.sees("an open room", `document.querySelector("#room-name").textContent === "yard"`)
	alice.does(chromedp.Evaluate[chromedp.Void](`(async () => {
		const { token } = await (await fetch("/dev/token", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ user: "carol" }) })).json();
		const headers = { "Content-Type": "application/json", Authorization: "Bearer " + token };
		await fetch("/dev/join", { method: "POST", headers, body: JSON.stringify({ room: "yard" }) });
		for (let i = 0; i < 310; i++) await fetch("/v1/rooms/yard/messages", { method: "POST", headers, body: JSON.stringify({ type: "text", text: "line " + i }) });
	})()`, chromedp.EvalAwaitPromise))
	const lines = `[...document.querySelectorAll("#messages .bubble")].map(b => b.textContent)`
	alice.sees("the newest", lines+`.at(-1) === "line 309" && `+lines+`.length < 300`)
	alice.does(chromedp.Evaluate[chromedp.Void](`(() => {
		window.up = setInterval(() => { document.querySelector("#scroll").scrollTop = 0; }, 50);
	})()`))
	alice.sees("all of them, in order", `(all => all.length === 310 && all.every((line, i) => line === "line " + i))(`+lines+`)`)
}

// TestAPageThatIsOpenOverNight: what was said today was said yesterday then.
func TestAPageThatIsOpenOverNight(t *testing.T) {
	dev := startDev(t)
	alice := openTab(t, browser(t), 900, 700, dev.URL()+"/#room=yard")
	alice.does(chromedp.Evaluate[chromedp.Void](`
		(() => {
			const Real = Date, real = setInterval;
			let shift = 0;
			const minutely = [];
			window.setInterval = (f, ms) => (ms >= 10_000 ? minutely.push(f) : real(f, ms));
			window.Date = class extends Real {
				constructor(...of) { super(...(of.length ? of : [Real.now() + shift])); }
				static now() { return Real.now() + shift; }
			};
			window.sleeps = () => { shift += 86_400_000; for (const f of minutely) f(); };
		})()`))
	alice.comesInAs("alice")
	alice.types("good night")
	const days = `[...document.querySelectorAll("#messages .sep")].map(n => n.textContent).join()`
	alice.sees("today", days+` === "Today" && document.querySelector("#rooms time").textContent !== "Yesterday"`)
	alice.does(chromedp.Evaluate[chromedp.Void](`sleeps()`))
	alice.sees("yesterday", days+` === "Yesterday" && document.querySelector("#rooms time").textContent === "Yesterday"`)
}

// TestRoomsByHand: a room is made, people are invited, the link is opened by
// somebody else, and left again: with the mouse and the keyboard.
func TestRoomsByHand(t *testing.T) {
	dev := startDev(t)
	chromium := browser(t)
	alice := openTab(t, chromium, 1000, 700, dev.URL())
	alice.comesInAs("alice")
	bob := openTab(t, chromium, 1000, 700, dev.URL())
	bob.comesInAs("bob")

	alice.does(
		chromedp.Click(css(`#first-room`)),
		chromedp.WaitVisible(css(`#room-dialog`)),
		chromedp.SendKeys(css(`#room-dialog [name=name]`), "Lunch & more"),
		chromedp.SendKeys(css(`#room-dialog [name=people]`), "bob"),
		chromedp.Click(css(`#room-dialog .primary`)),
	)
	alice.sees("the new room", `document.querySelector("#room-name").textContent === "Lunch & more" && location.hash.startsWith("#room=")`)
	alice.types("who is hungry?")

	bob.sees("the room he was invited to", `document.querySelector("#rooms .name")?.textContent === "Lunch & more"`)
	bob.sees("an unread hint", `document.querySelector("#rooms .badge")?.textContent === "1" && document.title.startsWith("(1)")`)
	bob.does(chromedp.Click(css(`#rooms button`)))
	bob.seesMessages("who is hungry?")
	bob.sees("no unread hint", `!document.querySelector("#rooms .badge")`)

	link, err := chromedp.Run(alice.ctx, chromedp.Evaluate[string](`location.href`))
	if err != nil {
		t.Fatal(err)
	}
	carol := openTab(t, chromium, 1000, 700, dev.URL())
	carol.comesInAs("carol")
	carol.does(
		chromedp.Click(css(`#new-room`)),
		chromedp.WaitVisible(css(`#room-dialog`)),
		chromedp.SendKeys(css(`#room-dialog [name=open]`), link),
		chromedp.Func(pressEnter),
	)
	carol.seesMessages("who is hungry?")
	carol.types("me!")
	alice.seesMessages("who is hungry?", "me!")
	alice.sees("three members", `document.querySelector("#room-members").textContent.startsWith("3 members")`)

	carol.does(
		chromedp.Click(css(`#show-members`)),
		chromedp.WaitVisible(css(`#members-dialog`)),
		chromedp.Click(css(`#members-dialog .danger`)),
	)
	carol.does(chromedp.Evaluate[chromedp.Void](`void (location.hash = "room=no%20room")`))
	carol.sees("why that can't be opened", `document.querySelector("#toasts .bad")?.textContent.startsWith("a room's ID is")`)
	carol.sees("no room any more", `!document.querySelector("#rooms button") && document.querySelector("#room").hidden`)
	alice.sees("that carol left", `[...document.querySelectorAll("#messages .system")].some(n => n.textContent === "carol left")`)
}

// TestRoomsThatAreLookedThroughAreRead: one room after the other, faster than
// markers are sent.
func TestRoomsThatAreLookedThroughAreRead(t *testing.T) {
	dev := startDev(t)
	alice := openTab(t, browser(t), 1000, 700, dev.URL())
	alice.does(chromedp.Evaluate[chromedp.Void](`(async () => {
		const post = async (url, body, token) => {
			const res = await fetch(url, { method: "POST", body: JSON.stringify(body),
				headers: { "Content-Type": "application/json", ...(token && { Authorization: "Bearer " + token }) } });
			if (!res.ok) throw new Error(url + ": " + res.status + " " + await res.text());
			return res.json();
		};
		const bob = (await post("/dev/token", { user: "bob" })).token;
		window.alice = (await post("/dev/token", { user: "alice" })).token;
		for (const id of ["yard", "gate"]) {
			await post("/v1/rooms", { id, members: ["alice"] }, bob);
			await post("/v1/rooms/" + id + "/messages", { type: "text", text: "in the " + id }, bob);
		}
	})()`, chromedp.EvalAwaitPromise))
	alice.comesInAs("alice")
	alice.sees("two rooms", `document.querySelectorAll("#rooms .badge").length === 2`)
	alice.does(chromedp.Evaluate[chromedp.Void](`(async () => {
		for (const id of ["yard", "gate"]) { // from the last of the list upwards
			document.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowUp", altKey: true }));
			while (document.querySelector("#messages .bubble")?.textContent !== "in the " + id) await new Promise((done) => setTimeout(done, 5));
		}
	})()`, chromedp.EvalAwaitPromise))
	alice.does(chromedp.Evaluate[chromedp.Void](`void setInterval(async () => {
		const res = await fetch("/v1/rooms", { headers: { Authorization: "Bearer " + alice } });
		window.unread = (await res.json()).rooms.map((r) => r.unread).join();
	}, 200)`))
	alice.sees("that the API knows of both", `window.unread === "0,0"`)
}

// TestTheLastRoomAskedForIsOpen: a room that takes long to join does not open over
// the one that was chosen after it.
func TestTheLastRoomAskedForIsOpen(t *testing.T) {
	dev := startDev(t)
	alice := openTab(t, browser(t), 1000, 700, dev.URL()+"/#room=yard")
	alice.comesInAs("alice")
	alice.sees("the room", `document.querySelector("#room-name").textContent === "yard"`)
	alice.does(chromedp.Evaluate[chromedp.Void](`(() => {
		const real = fetch;
		window.fetch = async (url, init) => {
			const res = await real(url, init);
			if (url === "/dev/join") await new Promise((done) => { window.release = done; });
			return res;
		};
		location.hash = "room=far";
	})()`))
	alice.sees("that it is being joined", `window.release`)
	alice.does(chromedp.Evaluate[chromedp.Void](`void (location.hash = "room=yard")`))
	alice.types("here")
	alice.does(chromedp.Evaluate[chromedp.Void](`release()`))
	alice.sees("both rooms", `document.querySelectorAll("#rooms li").length === 2 && document.querySelector("#toasts").textContent === "Room far was made"`)
	alice.does(chromedp.Evaluate[chromedp.Void](`fetch("/dev/config.json").then((res) => res.json())`, chromedp.EvalAwaitPromise)) // what came before has been dealt with
	alice.seesMessages("here")
	alice.sees("the room that was asked for last", `document.querySelector("#room-name").textContent === "yard"`)
	alice.does(chromedp.Evaluate[chromedp.Void](`void (location.hash = "room=far")`))
	alice.sees("the other one", `document.querySelector("#room-name").textContent === "far"`)
}

// TestALeftRoomThatIsStillListed: the list of rooms follows the members, a moment
// later; what it still has must not hide the others.
func TestALeftRoomThatIsStillListed(t *testing.T) {
	dev := startDev(t)
	alice := openTab(t, browser(t), 1000, 700, dev.URL())
	alice.does(chromedp.Evaluate[chromedp.Void](`(() => {
		const real = fetch;
		window.fetch = async (url, init) => {
			const res = await real(url, init), { pathname } = new URL(url, location.href);
			if (pathname === "/v1/rooms/left/messages") return new Response('{"code":"forbidden","detail":"not a member"}', { status: 403 });
			if (pathname !== "/v1/rooms" || init.method !== "GET") return res;
			const list = await res.json();
			list.rooms.push({ id: "left", name: "left", head: "1-0", n: 1, unread: 1, read: "0-0" });
			return new Response(JSON.stringify(list));
		};
	})()`))
	alice.comesInAs("alice")
	alice.does(chromedp.Evaluate[chromedp.Void](`void (location.hash = "room=yard")`))
	alice.sees("the room that she is in, and no other", `[...document.querySelectorAll("#rooms .name")].map((n) => n.textContent).join() === "yard"`)
	alice.types("hi")
	alice.seesMessages("hi")
	alice.sees("no complaint", `document.querySelectorAll("#toasts .bad").length === 0`)
}

// TestARoomThatNoURLCanName: whoever makes one and asks somebody in must not take the
// others from them.
func TestARoomThatNoURLCanName(t *testing.T) {
	dev := startDev(t)
	alice := openTab(t, browser(t), 1000, 700, dev.URL()+"/#room=messages") // which "/v1/rooms/./messages" becomes
	alice.does(chromedp.Evaluate[chromedp.Void](`(() => {
		const real = fetch;
		window.fetch = async (url, init) => {
			const res = await real(url, init), { pathname } = new URL(url, location.href);
			if (pathname !== "/v1/rooms" || init.method !== "GET") return res;
			const list = await res.json();
			list.rooms.push({ id: ".", name: "", head: "1-0", n: 1, unread: 1, read: "0-0" });
			return new Response(JSON.stringify(list));
		};
	})()`))
	alice.comesInAs("alice")
	alice.sees("her room", `[...document.querySelectorAll("#rooms .name")].map((n) => n.textContent).join() === "messages"`)
	alice.types("hi")
	alice.seesMessages("hi")
	alice.sees("no complaint", `document.querySelectorAll("#toasts .bad").length === 0`)
}

// TestTextFromRightToLeft: a line's first letters decide where it begins, as it is
// written, shown, and told in the list of rooms.
func TestTextFromRightToLeft(t *testing.T) {
	dev := startDev(t)
	alice := openTab(t, browser(t), 900, 700, dev.URL()+"/#room=yard")
	alice.comesInAs("alice")
	alice.does(chromedp.SendKeys(css(`#text`), "שלום, Bob!"))
	alice.sees("that it is written from the right", `getComputedStyle(document.querySelector("#text")).direction === "rtl"`)
	alice.does(chromedp.Func(pressEnter))
	alice.seesMessages("שלום, Bob!")
	const ends = `(selector) => {
		const text = document.querySelector(selector).firstChild;
		const at = (i) => { const r = document.createRange(); r.setStart(text, i); r.setEnd(text, i + 1); return r.getBoundingClientRect().left; };
		return at(text.length - 1) < at(0);
	}`
	alice.sees("that it ends on the left", `(`+ends+`)("#messages .bubble")`)
	alice.sees("the same in the list", `(`+ends+`)("#rooms .last bdi:last-child")`)
}

// TestALeftRoomLetsAnotherBeOpened: it is told of between the click on another room
// and its opening.
func TestALeftRoomLetsAnotherBeOpened(t *testing.T) {
	dev := startDev(t)
	alice := openTab(t, browser(t), 1000, 700, dev.URL()+"/#room=yard")
	alice.does(chromedp.Evaluate[chromedp.Void](`(() => {
		window.WebSocket = class extends WebSocket { constructor(...how) { super(...how); window.socket = this; } };
	})()`))
	alice.comesInAs("alice")
	alice.sees("the room", `document.querySelector("#room-name").textContent === "yard"`)
	alice.does(chromedp.Evaluate[chromedp.Void](`(() => {
		location.hash = "room=gate";
		socket.onmessage({ data: '{"type":"left","room":"yard","user":"alice","rooms_rev":1000000}' });
	})()`))
	alice.sees("the other room", `!document.querySelector("#room").hidden && document.querySelector("#room-name").textContent === "gate"`)
}

// TestWhatIsBeingSentStaysWithItsRoom: whoever writes and goes elsewhere is told
// when it could not be sent, and finds it where it was written.
func TestWhatIsBeingSentStaysWithItsRoom(t *testing.T) {
	dev := startDev(t)
	alice := openTab(t, browser(t), 1000, 700, dev.URL()+"/#room=yard")
	alice.does(chromedp.Evaluate[chromedp.Void](`(() => {
		const real = fetch;
		window.fetch = async (url, init) => {
			if (init?.method !== "POST" || !url.endsWith("/messages")) return real(url, init);
			return await new Promise((done) => { window.answer = done; }) ?? real(url, init);
		};
	})()`))
	alice.comesInAs("alice")
	goes := func(room string) {
		alice.does(chromedp.Evaluate[chromedp.Void](fmt.Sprintf(`void (location.hash = "room=%s")`, room)))
		alice.sees("the room", fmt.Sprintf(`document.querySelector("#room-name").textContent === %q`, room))
	}
	alice.sees("the room", `document.querySelector("#room-name").textContent === "yard"`)
	alice.types("hi")
	alice.sees("that it is being sent", `window.answer && document.querySelector("#messages .pending")`)
	goes("gate")
	alice.sees("nothing of it", `!document.querySelector("#messages .pending")`)
	goes("yard")
	alice.sees("that it is being sent", `document.querySelector("#messages .pending .bubble")?.textContent === "hi"`)
	goes("gate")
	alice.does(chromedp.Evaluate[chromedp.Void](`answer(new Response('{"code":"forbidden","detail":"not now"}', { status: 403 }))`))
	alice.sees("that it was not sent", `document.querySelector("#toasts").textContent === "A message to yard was not sent"`)
	goes("yard")
	alice.sees("why", `document.querySelector("#messages .failed .meta")?.textContent.startsWith("Not sent: not now")`)
	alice.does(chromedp.Evaluate[chromedp.Void](`(() => { window.answer = null; document.querySelector("#messages .failed button").click(); })()`))
	alice.sees("another try", `window.answer`)
	alice.does(chromedp.Evaluate[chromedp.Void](`answer()`))
	alice.seesMessages("hi")
	goes("gate")
	goes("yard")
	alice.seesMessages("hi")
	alice.sees("no more of it", `!document.querySelector("#messages .pending, #messages .failed")`)
}

// TestWhatHasComeIsSent: a message whose answer is lost, but that has come over the
// socket, is sent, for who comes back to its room too.
func TestWhatHasComeIsSent(t *testing.T) {
	dev := startDev(t)
	alice := openTab(t, browser(t), 1000, 700, dev.URL()+"/#room=yard")
	alice.does(chromedp.Evaluate[chromedp.Void](`(() => {
		const real = fetch;
		window.fetch = async (url, init) => {
			const res = await real(url, init);
			if (init?.method !== "POST" || !url.endsWith("/messages")) return res;
			return new Promise((done) => { window.answer = done; });
		};
	})()`))
	alice.comesInAs("alice")
	goes := func(room string) {
		alice.does(chromedp.Evaluate[chromedp.Void](fmt.Sprintf(`void (location.hash = "room=%s")`, room)))
		alice.sees("the room", fmt.Sprintf(`document.querySelector("#room-name").textContent === %q`, room))
	}
	alice.sees("the room", `document.querySelector("#room-name").textContent === "yard"`)
	const one = `[...document.querySelectorAll("#messages .bubble")].map((b) => b.textContent).join() === "hi" && !document.querySelector("#messages .pending, #messages .failed")`
	alice.types("hi")
	alice.sees("the message", `window.answer && `+one)
	goes("gate")
	goes("yard")
	alice.sees("the message, once", one)
	goes("gate")
	alice.does(chromedp.Evaluate[chromedp.Void](`(async () => { // as one that has tried for long enough
		answer(new Response('{"code":"invalid","detail":"too late"}', { status: 400 }));
		await new Promise((done) => setTimeout(done, 50));
		if (document.querySelector("#toasts").textContent.includes("not sent")) throw new Error("it is told that it was not sent");
	})()`, chromedp.EvalAwaitPromise))
}

// TestFilesByHand: files are chosen, uploaded and sent; an image is shown where it
// stands, everything else can be saved, and nothing of either is markup.
func TestFilesByHand(t *testing.T) {
	dev := startDev(t)
	chromium := browser(t)
	alice := openTab(t, chromium, 900, 700, dev.URL()+"/#room=yard")
	alice.comesInAs("alice")
	alice.sees("an open room", `document.querySelector("#room-name").textContent === "yard"`)
	bob := openTab(t, chromium, 900, 700, dev.URL()+"/#room=yard")
	bob.comesInAs("bob")

	alice.does(chromedp.Evaluate[chromedp.Void](`(async () => {
		const canvas = Object.assign(document.createElement("canvas"), { width: 40, height: 30 });
		const image = await new Promise((done) => canvas.toBlob(done, "image/png"));
		const chosen = new DataTransfer();
		chosen.items.add(new File([image], "the yard's <b>.png", { type: "image/png" }));
		chosen.items.add(new File(["<script>window.hacked = true</script>"], "<img src=x onerror=hacked=1>.html", { type: "image/png" }));
		chosen.items.add(new File(["<svg xmlns='http://www.w3.org/2000/svg' onload='hacked=1'/>"], "마당.svg", { type: "image/svg+xml" }));
		const input = document.querySelector("#files");
		input.files = chosen.files;
		input.dispatchEvent(new Event("change"));
	})()`, chromedp.EvalAwaitPromise))
	for _, p := range []*tab{alice, bob} {
		p.sees("the image and two files", `(() => {
			const files = document.querySelectorAll("#messages li:not(.pending) .file");
			const img = files[0]?.querySelector("img");
			return files.length === 3 && img?.naturalWidth === 40 && img.alt === "the yard's <b>.png" &&
				files[1].querySelector("button")?.textContent === "<img src=x onerror=hacked=1>.html (37 B)" &&
				files[2].querySelector("button")?.textContent.startsWith("마당.svg (");
		})()`)
		p.sees("no markup of the files'", `!window.hacked && document.querySelectorAll("#messages .file *").length === 3`)
	}
	// What is saved is what was sent.
	bob.does(chromedp.Evaluate[chromedp.Void](`(() => {
		window.saved = {};
		URL.createObjectURL = (blob) => { saved.type = blob.type; blob.text().then((text) => { saved.text = text; }); return "blob:x"; };
		HTMLAnchorElement.prototype.click = function () { saved.name = this.download; };
		document.querySelectorAll("#messages .file button")[0].click();
	})()`))
	bob.sees("the file", `saved.text === "<script>window.hacked = true</script>" && saved.type === "application/octet-stream" && saved.name.endsWith(".html")`)
	bob.sees("what came last in the list", `document.querySelector("#rooms .last").textContent === "alice: sent a file"`)

	// Images are let go with the room that shows them.
	alice.does(chromedp.Evaluate[chromedp.Void](`(async () => {
		window.kept = new Set();
		const make = URL.createObjectURL, drop = URL.revokeObjectURL;
		URL.createObjectURL = (blob) => { const url = make.call(URL, blob); kept.add(url); return url; };
		URL.revokeObjectURL = (url) => { kept.delete(url); drop.call(URL, url); };
		for (let i = 0; i < 3; i++) {
			for (const id of ["gate", "yard"]) {
				location.hash = "room=" + id;
				while (document.querySelector("#room-name").textContent !== id) await new Promise((done) => setTimeout(done, 5));
			}
			while (!document.querySelector("#messages .file img")) await new Promise((done) => setTimeout(done, 5));
		}
	})()`, chromedp.EvalAwaitPromise))
	alice.sees("one image kept", `kept.size === 1 && document.querySelector("#messages .file img").naturalWidth === 40`)
	alice.does(chromedp.Evaluate[chromedp.Void](`void (location.hash = "")`))
	alice.sees("none", `kept.size === 0`)
}
