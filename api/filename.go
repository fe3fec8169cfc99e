package api

import (
	"mime"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxFileName is as much as file systems take, in bytes.
const maxFileName = 255

// namelessFile is what a file is called whose name has nothing left in it.
const namelessFile = "file"

// safeName is a file's name without what would make it a path, break a header or
// a line, or make it look like another: folders, control and formatting
// characters (which turn the direction of text), dots and blanks at its ends. It
// has 255 bytes at most, of which the end stays when it looks like an extension.
func safeName(name string) string {
	name = name[strings.LastIndexAny(name, `/\`)+1:]
	name = strings.Map(func(r rune) rune {
		switch {
		case r == utf8.RuneError:
			return '_'
		case unicode.Is(unicode.Cc, r), unicode.Is(unicode.Cf, r), unicode.Is(unicode.Zl, r), unicode.Is(unicode.Zp, r):
			return -1
		case unicode.Is(unicode.Zs, r):
			return ' '
		}
		return r
	}, name)
	name = strings.Trim(name, " .")
	if len(name) > maxFileName {
		const longestExtension = 16
		extension := ""
		if dot := strings.LastIndexByte(name, '.'); len(name)-dot <= longestExtension {
			extension = name[dot:]
		}
		cut := maxFileName - len(extension)
		for !utf8.RuneStart(name[cut]) {
			cut--
		}
		name = strings.TrimRight(name[:cut], " .") + extension
	}
	if name == "" {
		return namelessFile
	}
	return name
}

// disposition is a Content-Disposition header (RFC 6266, with RFC 8187's form of
// names that are not ASCII).
func disposition(kind, name string) string {
	if header := mime.FormatMediaType(kind, map[string]string{"filename": name}); header != "" {
		return header
	}
	return kind
}
