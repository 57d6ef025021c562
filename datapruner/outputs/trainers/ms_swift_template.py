"""A template for ms-swift that leaves rows of token ids as they are: it puts nothing before or behind."""

from swift.template import TemplateMeta, register_template

register_template(TemplateMeta("datapruner", prefix=[], prompt=["{{QUERY}}"], chat_sep=None, suffix=[]))
