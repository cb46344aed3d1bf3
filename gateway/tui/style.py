"""Where everything stands, in Textual's CSS. Colours are the terminal's own sixteen."""

STYLE = """
Screen { layout: vertical; }
#figures, #losses, #shown { height: 1; }
#trouble { height: auto; max-height: 2; color: ansi_red; text-style: bold reverse; }
#filter { height: 1; }
Listing { height: 1fr; min-height: 3; scrollbar-size-vertical: 1; scrollbar-size-horizontal: 0;
          scrollbar-background: ansi_default; scrollbar-color: ansi_blue; }
#flows { height: 10fr; }
#ports { height: 4fr; }
#probes { height: 3fr; }
#events { height: 4fr; }
Listing.zoomed { height: 1fr; }
ModalScreen { align: center middle; }
#window { width: 72; max-width: 100%; height: auto; max-height: 100%; border: round ansi_blue;
          padding: 0 1; }
#title { text-style: bold; }
#text { height: auto; }
#caption { margin-top: 1; text-style: dim; }
#spark { height: 2; width: 100%; }
"""
