package test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"image/png"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"
)

// TestPicture plays the conversation of the README's picture, and wants all of it to
// be legible. With UPDATE_SCREENSHOT=1 it takes it: docs/images/demo.png.
func TestPicture(t *testing.T) {
	dev := startDev(t)
	others := func(user, room, text string) {
		t.Helper()
		call := func(method, path, token string, body any) (out struct{ Token string }) {
			b, err := json.Marshal(body)
			if err != nil {
				t.Fatal(err)
			}
			req, err := http.NewRequestWithContext(t.Context(), method, dev.URL()+path, bytes.NewReader(b))
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Content-Type", "application/json")
			req.Header.Set("Authorization", "Bearer "+token)
			res, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			if res.StatusCode/100 != 2 {
				t.Fatalf("%s %s: %s", method, path, res.Status)
			}
			if err := json.NewDecoder(res.Body).Decode(&out); err != nil {
				t.Fatal(err)
			}
			return out
		}
		token := call("POST", "/dev/token", "", map[string]string{"user": user}).Token
		call("POST", "/dev/join", token, map[string]string{"room": room})
		if text != "" {
			call("POST", "/v1/rooms/"+room+"/messages", token, map[string]string{"type": "text", "text": text})
		}
	}
	const room = "lunch-club"
	others("jiwoo", "band-practice", "Tuesday at eight, same place")
	others("alice", "band-practice", "")
	others("marek", "trail-runners", "12 km along the river, then breakfast 🥐")
	others("alice", "trail-runners", "")
	others("alice", room, "Morning! Who is in for lunch today?")
	others("alice", room, "The noodle place on the corner has opened again")
	others("jiwoo", room, "저요! 🙋 12시 반 어때요?")
	others("bob", room, "")

	chromium := browser(t)
	alice := openTab(t, chromium, 1040, 680, dev.URL()+"/#room="+room)
	alice.comesInAs("alice")
	bob := openTab(t, chromium, 390, 680, dev.URL()+"/#room="+room)
	bob.comesInAs("bob")
	said := []string{"Morning! Who is in for lunch today?", "The noodle place on the corner has opened again", "저요! 🙋 12시 반 어때요?"}
	says := func(p *tab, text string) { // and the next one when all have seen it: what is typed takes its time
		t.Helper()
		if p == nil {
			others("jiwoo", room, text)
		} else {
			p.types(text)
		}
		said = append(said, text)
		alice.seesMessages(said...)
		bob.seesMessages(said...)
	}
	says(bob, "Half past twelve works for me")
	says(alice, "Lovely, 12:30 then. I'll book a table for four: https://noodles.example/book")
	says(bob, "👏")
	says(nil, "Marek comes too, he is just locking his bike")
	says(alice, "Perfect. See you in the yard!")
	for _, scheme := range []string{"dark", "light"} {
		alice.readsAll(scheme)
		bob.readsAll(scheme)
	}
	if os.Getenv("UPDATE_SCREENSHOT") == "" {
		return
	}
	others("marek", "trail-runners", "Forecast says sun ☀️")
	alice.sees("an unread hint", `document.querySelector(".badge")`)
	path := filepath.Join("..", "docs", "images", "demo.png")
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := png.Encode(&out, sideBySide(alice.picture(), bob.picture())); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, out.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	fmt.Println("wrote", path)
}

// readsAll fails the test unless all text differs from what is behind it as much as
// WCAG 2.2 asks (1.4.3: 4.5 times as light, or as dark), in a colour scheme. What is
// on an image or a gradient, and what is said by something else too, is left out.
func (p *tab) readsAll(scheme string) {
	p.t.Helper()
	p.does(chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := cdp.Call(ctx, t, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
		})
		return err
	}))
	p.sees("the colours", fmt.Sprintf(`matchMedia("(prefers-color-scheme: %s)").matches && document.getAnimations().length === 0`, scheme))
	pale, err := chromedp.Run(p.ctx, chromedp.Evaluate[string](`(() => {
		const light = (colour) => {
			const [r, g, b] = colour.match(/[\d.]+/g).map((c) => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4));
			return 0.2126 * r + 0.7152 * g + 0.0722 * b + 0.05;
		};
		return [...document.querySelectorAll("body *")].filter((e) => {
			if (!e.checkVisibility() || e.closest("[aria-hidden]") || ![...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim())) return false;
			let behind = e;
			for (; getComputedStyle(behind).backgroundColor === "rgba(0, 0, 0, 0)"; behind = behind.parentElement) {
				if (getComputedStyle(behind).backgroundImage !== "none") return false;
			}
			const [a, b] = [getComputedStyle(e).color, getComputedStyle(behind).backgroundColor].map(light);
			return Math.max(a, b) / Math.min(a, b) < 4.5;
		}).map((e) => e.textContent).join("\n");
	})()`))
	if err != nil || pale != "" {
		p.t.Errorf("%s: %v, hard to read:\n%s", scheme, err, pale)
	}
}

func (p *tab) picture() image.Image {
	p.t.Helper()
	p.does(chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := cdp.Call(ctx, t, page.BringToFront, struct{}{})
		return err
	}))
	p.sees("the tab in front", `document.visibilityState === "visible" && !document.querySelector('[aria-current="true"] .badge')`)
	p.sees("the end of animations", `document.getAnimations().length === 0`)
	b, err := chromedp.Run(p.ctx, chromedp.CaptureScreenshot())
	if err != nil {
		p.t.Fatal(err)
	}
	img, err := png.Decode(bytes.NewReader(b))
	if err != nil {
		p.t.Fatal(err)
	}
	return img
}

// sideBySide puts windows next to each other, with round corners and a shade, on
// a quiet ground.
func sideBySide(windows ...image.Image) image.Image {
	const margin, gap, radius = 72, 56, 28
	width, height := 2*margin-gap, 0
	for _, w := range windows {
		width += w.Bounds().Dx() + gap
		height = max(height, w.Bounds().Dy())
	}
	out := image.NewRGBA(image.Rect(0, 0, width, height+2*margin))
	for y := range out.Bounds().Dy() {
		share := float64(y) / float64(out.Bounds().Dy())
		line := color.RGBA{uint8(214 - 28*share), uint8(227 - 24*share), uint8(219 - 22*share), 255}
		for x := range width {
			out.SetRGBA(x, y, line)
		}
	}
	x := margin
	for _, w := range windows {
		size := w.Bounds().Size()
		at := image.Rect(x, margin, x+size.X, margin+size.Y)
		for i := 24; i > 0; i-- { // the shade, from its faint edge inwards
			shade := image.NewUniform(color.RGBA{0, 0, 0, 3})
			r := at.Inset(-i).Add(image.Pt(0, 12))
			draw.DrawMask(out, r, shade, image.Point{}, rounded{r.Size(), radius + i}, image.Point{}, draw.Over)
		}
		draw.DrawMask(out, at, w, w.Bounds().Min, rounded{size, radius}, image.Point{}, draw.Over)
		x += size.X + gap
	}
	return out
}

// rounded is a mask: a rectangle with round corners.
type rounded struct {
	size   image.Point
	radius int
}

func (r rounded) ColorModel() color.Model { return color.AlphaModel }
func (r rounded) Bounds() image.Rectangle { return image.Rectangle{Max: r.size} }
func (r rounded) At(x, y int) color.Color {
	dx := max(r.radius-x, x-(r.size.X-1-r.radius), 0)
	dy := max(r.radius-y, y-(r.size.Y-1-r.radius), 0)
	d := dx*dx + dy*dy - r.radius*r.radius
	switch {
	case d <= -r.radius:
		return color.Alpha{255}
	case d >= r.radius:
		return color.Alpha{0}
	}
	return color.Alpha{uint8(255 * (r.radius - d) / (2 * r.radius))} // one pixel's width
}
