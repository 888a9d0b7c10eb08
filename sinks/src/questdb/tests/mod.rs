//! The sink against a real QuestDB.
